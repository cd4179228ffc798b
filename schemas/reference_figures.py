"""Figures that papers printed of the systems that Normloom rebuilds, shown next to ours."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from normloom.core.errors import ConfigError
from normloom.schemas.taxonomy import read_rows

FILE = Path(__file__).parent / "reference_figures.csv"


class ReferenceFigure(BaseModel):
    """One printed number.

    `metric`, `axis` (empty: any), `slice_by` and `slice` name what it measures as in the contract `FIGURES`; `pick`
    says which of several figures of that name it is. `value` is in `unit` (empty: a plain number); `models` made it and
    `source` printed it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str = Field(min_length=1)
    metric: str = Field(min_length=1)
    axis: str
    slice_by: str = Field(min_length=1)
    slice: str = Field(min_length=1)
    pick: Literal["", "smallest", "largest"]
    figure: str = Field(min_length=1)
    value: float = Field(allow_inf_nan=False)
    unit: Literal["", "%", "rows", "labels"]
    models: str = Field(min_length=1)
    source: str = Field(min_length=1)


def reference_figures(system: str) -> list[ReferenceFigure]:
    """Return what papers printed of a system, in the order of the file; nothing if none is known."""
    return [figure for figure in load_reference_figures(FILE) if figure.system == system]


@cache
def load_reference_figures(path: Path) -> tuple[ReferenceFigure, ...]:
    """Return the figures of a CSV file; raises ConfigError with the line if one is wrong."""
    figures = []
    for line, row in read_rows(path, tuple(ReferenceFigure.model_fields)):
        try:
            figures.append(ReferenceFigure.model_validate(row))
        except ValidationError as error:
            wrong = error.errors()[0]
            where = ".".join(map(str, wrong["loc"]))
            raise ConfigError(
                f"{path}, line {line}, column {where}: {wrong['msg']}, found {wrong['input']!r}."
            ) from error
    return tuple(figures)
