"""Strata of a table that is audited: rows of one verdict, about as sure, of one group."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

from normloom.tasks.audit.auditing import Auditing

MOST = 12  # strata; each is drawn from, whatever the budget
FEWEST_ROWS = 20  # of a stratum on average
BANDS = 3  # of the margin
SURE, UNSURE, UNKNOWN = 0.05, 0.5, 0.2  # error rates: at most so sure, at margin 0, without a margin
GROUPS = pl.List(pl.Struct({"by": pl.String, "value": pl.String}))


def cut(rows: pl.DataFrame, args: Auditing) -> pl.Series:
    """Return the name of each row's stratum: its verdict, the third of this verdict's margins, and its groups.

    Columns of `by` are taken as long as there are at most MOST strata of FEWEST_ROWS rows on average; of a list of
    labels the first counts. The budget plays no part, so that a larger one draws more of the same strata.
    """
    names = rows["audit_verdict"]
    candidates = [_band(rows)] if rows["audit_margin"].null_count() < rows.height else []
    candidates += [_first(rows[name]) for name in args.by]
    for candidate in candidates:
        finer = pl.Series(f"{name} / {more}" for name, more in zip(names, candidate, strict=True))
        if (count := finer.n_unique()) <= MOST and rows.height >= count * FEWEST_ROWS:
            names = finer
    return names.rename("audit_stratum")


def groups_of(rows: pl.DataFrame, by: Sequence[str]) -> pl.Series:
    """Return the groups that each row belongs to, by column; a list of labels makes several."""
    found = [
        [{"by": name, "value": value} for name in by for value in _labels(row[name])]
        for row in rows.select(by).iter_rows(named=True)
    ]
    return pl.Series("audit_groups", found or [[] for _ in range(rows.height)], dtype=GROUPS)


def spreads(rows: pl.DataFrame, names: Sequence[str], args: Auditing) -> list[float]:
    """Return the standard deviation of being wrong that is expected of each stratum, before any answer.

    A judge with margin m is taken to err with probability (1 - m) / 2 (**ours**): only the draw depends on it, no
    estimate does. For the precision of a verdict only strata of this verdict count.
    """
    means = rows.group_by("audit_stratum").agg(pl.col("audit_margin").mean(), pl.col("audit_verdict").first())
    found = {stratum: (margin, verdict) for stratum, margin, verdict in means.iter_rows()}
    spread = []
    for name in names:
        margin, verdict = found[name]
        error = UNKNOWN if margin is None else min(max((1 - margin) / 2, SURE), UNSURE)
        counts = args.figure == "share" or verdict == args.of
        spread.append(math.sqrt(error * (1 - error)) if counts else 0.0)
    return spread


def _band(rows: pl.DataFrame) -> list[str]:
    """Return which third of the margins of its verdict each row is in."""
    known = rows.with_columns(
        place=pl.col("audit_margin").rank("ordinal").over("audit_verdict"),
        of=pl.col("audit_margin").count().over("audit_verdict"),
    )
    bands = ("low margin", "middle margin", "high margin")
    return [
        "no margin" if place is None else bands[(place - 1) * BANDS // of]
        for place, of in known.select("place", "of").iter_rows()
    ]


def _first(column: pl.Series) -> list[str]:
    return [next(iter(_labels(value)), "none") for value in column.to_list()]


def _labels(value: object) -> list[str]:
    """Return the values of one cell: a text, or the labels of a list (texts, or records with a field `label`)."""
    if value is None:
        return []
    if isinstance(value, list):
        return [str(one["label"]) if isinstance(one, dict) and "label" in one else str(one) for one in value]
    return [str(value)]
