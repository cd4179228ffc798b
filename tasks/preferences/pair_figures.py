"""What became of the replies and the pairs, in figures: counts by model and reason, quantiles, margins, weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.run.checks.own import variation
from normloom.schemas import tables
from normloom.schemas.training.preference_tables import CONTENT, FORMAT
from normloom.steps.step import step
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output
from normloom.tasks.preferences.pairs import Pairing
from normloom.tasks.preferences.quality import average_words

MODEL, STATUS = "model", "parse_status"
REPLIES = "replies"


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy",))
def pair_figures(rows: pl.DataFrame) -> Output:
    """Return the figures of pairs, by the method that made them."""
    figures = []
    for (method,), pairs in rows.group_by("method", maintain_order=True):
        figures += list(_of_pairs(pairs, str(method)))
    return figures_output(figures)


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy",))
def reply_figures(rows: pl.DataFrame, args: Pairing, scored: pl.DataFrame) -> Output:
    """Return the figures of replies: how they parsed, by model too, and where the quantiles of the quality are."""
    return figures_output(list(_of_replies(rows, scored, args)))


def _of_replies(parsed: pl.DataFrame, scored: pl.DataFrame, args: Pairing) -> Iterator[dict[str, object]]:
    import numpy as np

    for name, value in parsed.group_by(STATUS).len().sort(STATUS).iter_rows():
        yield _row(value, parsed, metric=REPLIES, of=name)
    for model, status, value in parsed.group_by(MODEL, STATUS).len().sort(MODEL, STATUS).iter_rows():
        yield _row(value, parsed, metric=REPLIES, of=status, slice_by=MODEL, slice=model)
    yield _row(scored.height, parsed, metric="scored", of=REPLIES)
    yield _row(scored["bonus_fired"].sum(), scored, metric="bonus_fired", of=REPLIES)
    if scored.is_empty():
        return
    yield _row(average_words(scored), scored, metric="average_words", of=REPLIES)
    for name, at in (("lower", args.lower), ("upper", args.upper)):
        quantile = float(np.quantile(scored["quality"].to_numpy(), at))
        yield _row(quantile, scored, metric="quality_quantile", of=name)


def _of_pairs(pairs: pl.DataFrame, method: str) -> Iterator[dict[str, object]]:
    yield _row(pairs.height, pairs, metric="pairs", of=method)
    yield _row(pairs["dialogue"].n_unique(), pairs, metric="prompts_with_pairs", of=method)
    for kind in (CONTENT, FORMAT):
        yield _row(pairs.filter(rejected_kind=kind).height, pairs, metric=f"rejected_{kind}", of=method)
    for side in ("chosen", "rejected"):
        replies = pairs[f"{side}_id"].n_unique()
        yield _row(replies, pairs, metric=f"distinct_{side}", of=method)
        for model, count in pairs.group_by(f"{side}_model").len().sort(f"{side}_model").iter_rows():
            yield _row(count, pairs, metric=side, of=method, slice_by=MODEL, slice=model)
    longer = (pairs["chosen_words"] > pairs["rejected_words"]).mean()
    yield _row(longer, pairs, metric="longer_is_chosen", of=method)
    yield from _margins(pairs, method)


def _margins(pairs: pl.DataFrame, method: str) -> Iterator[dict[str, object]]:
    known = pairs.drop_nulls("margin")
    if known.is_empty():
        return
    margin, weight = known["margin"], known["weight"]
    for name, value in (
        ("min", margin.min()),
        ("median", margin.median()),
        ("mean", margin.mean()),
        ("max", margin.max()),
    ):
        yield _row(value, known, metric="margin", of=method, axis=name)
    yield _row(weight.mean(), known, metric="weight", of=method, axis="mean")
    yield _row(variation(weight), known, metric="weight", of=method, axis="variation")


def _row(value: Any, rows: pl.DataFrame, **position: str) -> dict[str, object]:
    return figure_row(Figure(value=float(value), rows=rows.height), **position)
