"""What a section shows: plots, tables, notes and tiles, without a word of HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Width = Literal["whole", "half", "third"]
Cell = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plotly figure (`data` and `layout`) without colours of the page, which are the theme's; `width` of the page."""

    title: str
    figure: Mapping[str, Any]
    width: Width = "half"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; columns of numbers stand to the right. `folded` shows its title only until it is opened."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False


@dataclass(frozen=True, kw_only=True)
class Note:
    """A sentence or two."""

    text: str
    warning: bool = False


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """A few figures that are seen at once: name -> value."""

    values: Mapping[str, Cell]


Block = Plot | Table | Note | Tiles


def share(value: float | None) -> str:
    """Return a share in per cent, `-` where there is none."""
    return "-" if value is None else f"{100 * value:.1f} %"


def rounded(value: float | None) -> str:
    """Return a figure to four significant digits, `-` where there is none."""
    return "-" if value is None else f"{value:.4g}"
