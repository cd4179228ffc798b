"""Persona data of our own: dialogues to try PersoDPO on, and invented people to try PersoPilot on.

`PROMPTS`: `prompt_id`, `split` (train or valid), `persona`, `context`, `reference` (what was said next).
`FILES`: what is known of 24 people, the topics of tasks, who would take an offer, and utterances that state a fact.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
PROMPTS = _HERE / "prompts.csv"
FILES = {
    "path": _HERE / "facts.csv",
    "topics": _HERE / "task_topics.csv",
    "labels": _HERE / "classification_labels.csv",
    "utterances": _HERE / "utterances.csv",
}
