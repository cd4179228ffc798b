"""Persona dialogues of our own, short ones, to try PersoDPO on.

Columns: `prompt_id`, `split` (train or valid), `persona`, `context`, `reference` (what was said next).
"""

from __future__ import annotations

from pathlib import Path

PROMPTS = Path(__file__).parent / "prompts.csv"
