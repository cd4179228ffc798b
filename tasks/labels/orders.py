"""The order in which rows are asked about. Ties are broken at random, by row: the same in every build."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import polars as pl

from normloom.core.errors import ConfigError
from normloom.core.rows.ids import seed
from normloom.labelling.asking import Asking, Order

Ranks = list[tuple[float, str]]  # of each row: what it is sorted by, lowest first, and why it stands there


def ordered(rows: pl.DataFrame, args: Asking) -> pl.DataFrame:
    """Return the rows in their order, with columns `place` (from 1) and `chosen_by`; at most `take` of them.

    Raises ConfigError for a column that is not there or holds nothing to go by.
    """
    luck = [seed(row, "ask", args.seed) for row in rows["row_id"]]
    ranks = ORDERS[args.order](rows, args, luck)
    places = sorted(range(rows.height), key=lambda place: (ranks[place][0], luck[place]))[: args.take]
    return rows[places].with_columns(
        place=pl.int_range(1, len(places) + 1, dtype=pl.Int64),
        chosen_by=pl.Series([ranks[place][1] for place in places], dtype=pl.String),
    )


def _random(rows: pl.DataFrame, _: Asking, __: list[int]) -> Ranks:
    return [(0.0, "random")] * rows.height


def _given(rows: pl.DataFrame, _: Asking, __: list[int]) -> Ranks:
    return [(float(place), "given") for place in range(rows.height)]


def _uncertainty(rows: pl.DataFrame, args: Asking, _: list[int]) -> Ranks:
    """Rank by entropy, relative to the highest that there can be: 1 for all options alike (Settles 2009, 2.1)."""
    return [(-value, f"uncertainty {value:.2f}") for value in map(_entropy, _values(rows, args))]


def _margin(rows: pl.DataFrame, args: Asking, _: list[int]) -> Ranks:
    """Rank by the distance to the threshold, or between the two most probable options (Scheffer and others 2001)."""
    return [(value, f"margin {value:.2f}") for value in (_gap(one, args.threshold) for one in _values(rows, args))]


def _group(rows: pl.DataFrame, args: Asking, luck: list[int]) -> Ranks:
    values = [str(value) for value in _column(rows, args)]
    turns: dict[int, int] = {}
    seen: Counter[str] = Counter()
    for place in sorted(range(rows.height), key=lambda place: luck[place]):
        turns[place] = seen[values[place]]
        seen[values[place]] += 1
    return [(float(turns[place]), f"{args.by} {values[place]}") for place in range(rows.height)]


ORDERS: dict[Order, Callable[[pl.DataFrame, Asking, list[int]], Ranks]] = {
    "random": _random,
    "uncertainty": _uncertainty,
    "margin": _margin,
    "group": _group,
    "given": _given,
}


def _column(rows: pl.DataFrame, args: Asking) -> list[Any]:
    if args.by not in rows.columns:
        raise ConfigError(f"ask {args.name!r}: unknown column {args.by!r}; available: {', '.join(rows.columns)}")
    return rows[args.by].to_list()


def _values(rows: pl.DataFrame, args: Asking) -> list[list[float] | float | None]:
    values = _column(rows, args)
    for value in values:
        numbers = value if isinstance(value, list) else [value]
        if not all(one is None or isinstance(one, int | float) for one in numbers):
            raise ConfigError(
                f"ask {args.name!r}: column {args.by!r} must hold numbers or lists of them, got {value!r}"
            )
    return values


def _entropy(value: list[float] | float | None) -> float:
    """Return the entropy of probabilities as a share of the highest; 0 for what is not known."""
    shares = [value, 1 - value] if isinstance(value, int | float) else [one for one in value or [] if one is not None]
    whole = sum(shares)
    if len(shares) < 2 or whole <= 0 or min(shares) < 0:  # noqa: PLR2004  # one option is certain
        return 0.0
    return -sum(p * math.log(p) for p in (one / whole for one in shares) if p > 0) / math.log(len(shares))


def _gap(value: list[float] | float | None, threshold: float) -> float:
    if isinstance(value, int | float):
        return abs(value - threshold)
    best = sorted((one for one in value or [] if one is not None), reverse=True)[:2]
    return best[0] - best[1] if len(best) == 2 else math.inf  # noqa: PLR2004  # both are there
