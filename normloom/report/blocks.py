"""What a section shows: plots, tables, notes and tiles, without a word of HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

SMALLEST = 0.001  # of figures; a smaller one is only said to be so
DECIMALS = ((1000, 0), (100, 1), (1, 2))  # least size of a figure -> its decimals; below: 3

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


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row: short facts about it, and its texts as they are."""

    title: str
    facts: Mapping[str, str]
    texts: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Medium:
    """An image, blurred until it is clicked, or a sound; `source` is a data URL, empty for one that is not held."""

    title: str
    kind: str
    source: str
    facts: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Marked:
    """A text with pieces of it marked, maybe with the picture it stands in, blurred until it is clicked.

    `pieces` are the text in order, each with the name of its mark, or None; `strong` are the names that stand out.
    """

    title: str
    source: str | None
    pieces: Sequence[tuple[str, str | None]]
    strong: Sequence[str]
    facts: Mapping[str, str]
    texts: Mapping[str, str]


Block = Plot | Table | Note | Tiles | Example | Medium | Marked


def share(value: float | None) -> str:
    """Return a share in per cent, `-` if there is none."""
    return "-" if value is None else f"{100 * value:.1f} %"


def rounded(value: float | None) -> str:
    """Return a figure as people read it: no powers of ten, three decimals below 1; `-` if there is none."""
    if value is None:
        return "-"
    if value != 0 and abs(value) < SMALLEST:
        return f"< {SMALLEST}" if value > 0 else f"> -{SMALLEST}"
    decimals = next((digits for least, digits in DECIMALS if abs(value) >= least), 3)
    text = f"{value:,.{decimals}f}"
    whole = math.isclose(value, round(value), rel_tol=1e-9)
    return f"{round(value):,}" if whole else text
