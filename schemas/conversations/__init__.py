"""Conversations of our own in DICES's layout, and persons described to the raters. No human has rated them.

`items.csv` holds the conversations with our own `safety_gold`, `ratings.csv` a row for each of them and each person,
whose `Q_overall` is empty.
"""

from __future__ import annotations

from pathlib import Path

RATINGS = Path(__file__).parent / "ratings.csv"
ITEMS = Path(__file__).parent / "items.csv"
