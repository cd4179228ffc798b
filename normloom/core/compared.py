"""Steps whose rows are compared with side tables: what of these tables decides a part, and what does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

Touches = Callable[[pl.DataFrame, pl.DataFrame, pl.DataFrame, Mapping[str, Any]], bool]


def _any(made: pl.DataFrame, lost: pl.DataFrame, new: pl.DataFrame, given: Mapping[str, Any]) -> bool:  # noqa: ARG001  # as called
    return True


@dataclass(frozen=True)
class Compared:
    """What a step looks at when it compares its rows with the rows of side tables.

    It looks at their `columns`, all if that is None, and what it drops for one of them names it as the winner.
    `touches(made, lost, new, given)` tells for the rows and the dropped rows of a part whether the `new` rows of a side
    table might change these; `given` are the arguments and values of the step by name.
    """

    columns: tuple[str, ...] | None = None
    touches: Touches = _any
