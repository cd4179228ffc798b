"""Prompts of our own for three axes: helpful, harmless and honest, with good replies and those to avoid.

`AXES`: a JSON object in each line with `axis`, `prompt`, `reference`, `bad_reference` and `split`. Some of the requests
ask for harm, soberly; none of the replies tells how it is done. `UNSAFE_TERMS`: words that unsafe replies
tend to have, with their kind; there are no slurs among them.
"""

from __future__ import annotations

from pathlib import Path

AXES = Path(__file__).parent / "axes.jsonl"
UNSAFE_TERMS = Path(__file__).parent / "unsafe_terms.csv"
