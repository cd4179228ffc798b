"""Quarantine rules of the runner, and which of them are transient: not the row's fault.

Rules named by a stage or a check are about the row, and would apply again.
"""

from __future__ import annotations

MODEL = "model"  # the model cannot take the row: it does not fit the context, or the answer is a refusal
OUTAGE = "outage"  # the model gave no answer, for a reason that has nothing to do with the row
POISON = "poison"  # the row makes the stage's function raise
CRASH = "crash"  # the process died at the row, or the machine ran out of memory, disk or connections

TRANSIENT = frozenset({OUTAGE, CRASH})
