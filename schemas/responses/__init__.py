"""Prompts of our own, each with an aligned and a misaligned response: a small set to try the benchmark on.

Columns: `prompt`, `response`, `alignment`, and for each dimension the ids of the prompt's labels, parted by `;`. A
misaligned response is rude, dishonest, dismissive or disrespectful of a culture; none of them is dangerous.
"""

from __future__ import annotations

from pathlib import Path

BUILTIN = Path(__file__).parent / "builtin.csv"
