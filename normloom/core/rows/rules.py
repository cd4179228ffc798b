"""Quarantine rules that the loom itself gives rows, and which of them blame the world and not the row.

A stage and a check may name rules of their own; they say something about a row, and will say it again.
"""

from __future__ import annotations

MODEL = "model"  # the model cannot take the row: it does not fit the context, or the answer is a refusal
OUTAGE = "outage"  # the model gave no answer, for a reason that has nothing to do with the row
POISON = "poison"  # the row makes the stage's function raise
CRASH = "crash"  # the process died at the row, or the machine ran out of memory, disk or connections

TRANSIENT = frozenset({OUTAGE, CRASH})
