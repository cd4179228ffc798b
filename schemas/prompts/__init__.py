"""Prompts of our own with the labels they are meant to have: one half calibrates, the other measures.

Columns: `prompt`, and for each dimension the ids of its labels, parted by `;`.
"""

from __future__ import annotations

from pathlib import Path

CALIBRATE = Path(__file__).parent / "calibrate.csv"
MEASURE = Path(__file__).parent / "measure.csv"
