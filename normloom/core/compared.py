"""Steps that compare their rows with side tables: which side rows affect a part, and which do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from normloom.core.errors import ConfigError

Touches = Callable[[pl.DataFrame, pl.DataFrame, pl.DataFrame, Mapping[str, Any]], bool]


def _any(made: pl.DataFrame, lost: pl.DataFrame, new: pl.DataFrame, given: Mapping[str, Any]) -> bool:  # noqa: ARG001  # as called
    return True


@dataclass(frozen=True)
class Compared:
    """What a step looks at when it compares its rows with the rows of side tables.

    It is handed their `columns` (None: all) and `row_id`, and each row that it drops names the side row that won.
    `touches(made, lost, new, given)` returns whether the `new` rows of a side table might change the rows or the
    dropped rows of a part; `given` are the step's arguments and values by name.
    """

    columns: tuple[str, ...] | None = None
    touches: Touches = _any

    def __post_init__(self) -> None:
        if isinstance(self.columns, str):
            raise ConfigError(
                f'Compared: columns must be names of columns in a tuple, such as ("prompt",); got {self.columns!r}'
            )
