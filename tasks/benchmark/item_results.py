"""What each model did with each item, next to the item and the data set's own columns: to inspect, filter and join."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from normloom.core.contract import IDENTITY
from normloom.core.fan_out import each
from normloom.core.stage import Output
from normloom.schemas import benchmark_tables
from normloom.schemas.taxonomy import DIMENSIONS
from normloom.steps.step import step
from normloom.tasks.release.source_columns import released_names

_PART_ROWS = 16_384
_FIRST = pl.col("parents").list.first()


@step(makes=benchmark_tables.DETECTOR_RESULTS, part_rows=_PART_ROWS, fan_out=each())
def detector_results(
    rows: pl.DataFrame,
    items: pl.DataFrame,
    dataset: pl.DataFrame,
    *own: pl.DataFrame,
    dimensions: tuple[str, ...] = DIMENSIONS,
) -> Output:
    """Return each detector's verdict with the response that it is about."""
    beside = items.with_columns(_row=_FIRST).rename({"row_id": "item_id"})
    return _output(rows, beside, "item_id", _own(dimensions, dataset, own), benchmark_tables.DETECTOR_RESULTS.columns)


@step(makes=benchmark_tables.RESPONDER_RESULTS, part_rows=_PART_ROWS, fan_out=each())
def responder_results(
    rows: pl.DataFrame,
    items: pl.DataFrame,
    dataset: pl.DataFrame,
    *more: pl.DataFrame,
    own: bool,
    dimensions: tuple[str, ...] = DIMENSIONS,
) -> Output:
    """Return each judge's checks with the answer that they are about, and the first item of its prompt.

    `more` are the table of own columns, if `own` says that there is one, and those of answers.
    """
    answers = pl.concat(more[own:]).select(_answer="row_id", response="response")
    judged = rows.with_columns(_answer=_FIRST).join(answers, on="_answer", how="left", maintain_order="left")
    beside = items.with_columns(_row=_FIRST).unique("prompt_id", keep="first", maintain_order=True)
    columns = _own(dimensions, dataset, more[:own])
    return _output(judged, beside, "prompt_id", columns, benchmark_tables.RESPONDER_RESULTS.columns)


def _own(dimensions: tuple[str, ...], dataset: pl.DataFrame, own: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return the own columns of the data set's rows: those of a published one are among its columns."""
    if "source_row" not in dataset.columns:  # published before there was one
        dataset = dataset.with_columns(source_row=pl.lit(None, dtype=pl.Int64))
    known = {*IDENTITY, *benchmark_tables.dataset(dimensions).columns, "semantic_type"}
    further = [name for name in dataset.columns if name not in known]
    read = dataset.select("source_row", *further, _row="row_id")
    for columns in own:
        read = read.join(columns.drop(list(IDENTITY)), on="source_row", how="left", maintain_order="left")
    return read


def _output(rows: pl.DataFrame, items: pl.DataFrame, key: str, own: pl.DataFrame, columns: Iterable[str]) -> Output:
    there = {*rows.columns, "parents"} - {key}
    joined = rows.join(items.drop(there, strict=False), on=key, how="left", maintain_order="left")
    names = released_names([name for name in own.columns if name not in {"_row", "source_row"}], tuple(columns))
    whole = joined.join(own.rename(names), on="_row", how="left", maintain_order="left")
    return Output(rows=whole.select("row_id", *columns, *names.values()))
