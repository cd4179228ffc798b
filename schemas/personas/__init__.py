"""Persona data of our own: dialogues to try PersoDPO on, and invented people to try PersoPilot on.

`PROMPTS`: `prompt_id`, `split` (train or valid), `persona`, `context`, `reference` (what was said next).
`FACTS`: what is known of 24 people. `FILES`: topics of tasks, who would take an offer, and utterances with a fact each.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
PROMPTS = _HERE / "prompts.csv"
FACTS = _HERE / "facts.csv"
FILES = {
    "topics": _HERE / "task_topics.csv",
    "labels": _HERE / "classification_labels.csv",
    "utterances": _HERE / "utterances.csv",
}
