"""Memes of our own in Multi3Hate's layout, without pictures.

`memes.csv` has their texts in five languages. The labels are ours, the same for every country: no person of any
country has rated them, and they say nothing of one. `satire.csv` has abuse of groups next to satire with the same
words, in English, labelled by us.
"""

from __future__ import annotations

from pathlib import Path

MEMES = Path(__file__).parent / "memes.csv"
SATIRE = Path(__file__).parent / "satire.csv"
