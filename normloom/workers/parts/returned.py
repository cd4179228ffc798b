"""What a step returned: an Output whose frames, ledgers and counts are what they must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from normloom.core.errors import ContractError
from normloom.core.stage import Output
from normloom.core.table import DROPPED_SCHEMA, QUARANTINE_SCHEMA

_FRAMES = {"rows": {}, "dropped": DROPPED_SCHEMA, "quarantined": QUARANTINE_SCHEMA}
_TOLD = {"dropped": "reason", "quarantined": "rule"}  # what each entry of a ledger says


def require_output(output: Any, *, where: str) -> Output:
    """Return what a step returned if it is an Output as declared; raises ContractError, naming what is wrong."""
    if not isinstance(output, Output):
        raise ContractError(f"{where}: its step must return a polars.DataFrame or an Output, not {_kind(output)}")
    for name, schema in _FRAMES.items():
        frame = getattr(output, name)
        if not isinstance(frame, pl.DataFrame):
            raise ContractError(f"{where}: `{name}` of its Output must be a polars.DataFrame, not {_kind(frame)}")
        if lacking := [column for column in schema if column not in frame.columns]:
            raise ContractError(
                f"{where}: `{name}` of its Output lacks {', '.join(map(repr, lacking))}: a ledger has the columns "
                f"{', '.join(schema)}"
            )
    for name, told in _TOLD.items():
        if getattr(output, name)[told].null_count():
            raise ContractError(f"{where}: `{name}` of its Output has entries without {told!r}: say why rows go")
    for name in ("attempts", "tokens_in", "tokens_out"):
        count = getattr(output, name)
        if not (_is_count(count) or (count is None and name == "attempts")):
            raise ContractError(f"{where}: `{name}` of its Output must be a count, not {count!r}")
    metrics = output.metrics
    if not isinstance(metrics, Mapping) or not all(_is_metric(*one) for one in metrics.items()):
        raise ContractError(f"{where}: `metrics` of its Output must be numbers by name, not {metrics!r}")
    return output


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__module__.partition('.')[0]}.{type(value).__name__}"


def _is_count(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool) and value >= 0


def _is_metric(name: Any, value: Any) -> bool:
    return isinstance(name, str) and hasattr(value, "__float__")
