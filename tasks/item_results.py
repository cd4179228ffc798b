"""What each model did with each item, beside the item and the data set's own columns: to look at, filter and join."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl
from pydantic import BaseModel, ConfigDict

from normloom.contract import IDENTITY
from normloom.schemas import benchmark_tables
from normloom.stage import Output, Stage
from normloom.tasks.source_columns import released_names

_PART_ROWS = 16_384
_FIRST = pl.col("parents").list.first()


class ItemResults(BaseModel):
    """`known` are the columns that any data set has, which are none of its own; `own`: a table of these is at hand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    known: tuple[str, ...]
    own: bool


def join_verdicts(
    rows: pl.DataFrame, arguments: ItemResults, items: pl.DataFrame, dataset: pl.DataFrame, *own: pl.DataFrame
) -> Output:
    """Return each detector's verdict with the response that it is about."""
    beside = items.with_columns(_row=_FIRST).rename({"row_id": "item_id"})
    return _output(rows, beside, "item_id", _own(arguments, dataset, own), benchmark_tables.DETECTOR_RESULTS.columns)


def join_answers(
    rows: pl.DataFrame, arguments: ItemResults, items: pl.DataFrame, dataset: pl.DataFrame, *more: pl.DataFrame
) -> Output:
    """Return each judge's checks with the answer that they are about, and the first item of its prompt.

    `more` are the table of own columns, if there is one, and those of answers.
    """
    answers = pl.concat(more[arguments.own :]).select(_answer="row_id", response="response")
    judged = rows.with_columns(_answer=_FIRST).join(answers, on="_answer", how="left", maintain_order="left")
    beside = items.with_columns(_row=_FIRST).unique("prompt_id", keep="first", maintain_order=True)
    own = _own(arguments, dataset, more[: arguments.own])
    return _output(judged, beside, "prompt_id", own, benchmark_tables.RESPONDER_RESULTS.columns)


def _own(arguments: ItemResults, dataset: pl.DataFrame, own: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return the own columns of the data set's rows: those of a published one are among its columns."""
    if "source_row" not in dataset.columns:  # published before there was one
        dataset = dataset.with_columns(source_row=pl.lit(None, dtype=pl.Int64))
    further = [name for name in dataset.columns if name not in {*IDENTITY, *arguments.known}]
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


def detector_results(
    detected: Sequence[Stage], items: Stage, dataset: Stage, *, dimensions: tuple[str, ...], own: Stage | None
) -> Stage:
    """Return the stage that puts detectors' verdicts beside their items."""
    return Stage(
        name="detector_results",
        function=join_verdicts,
        arguments=_arguments(dimensions, own),
        contract=benchmark_tables.DETECTOR_RESULTS,
        inputs=tuple(detected),
        sides=(items, dataset, *([own] if own else [])),
        part_rows=_PART_ROWS,
    )


def responder_results(
    assessed: Sequence[Stage],
    answers: Sequence[Stage],
    items: Stage,
    dataset: Stage,
    *,
    dimensions: tuple[str, ...],
    own: Stage | None,
) -> Stage:
    """Return the stage that puts judges' checks beside the answers and items that they are about."""
    return Stage(
        name="responder_results",
        function=join_answers,
        arguments=_arguments(dimensions, own),
        contract=benchmark_tables.RESPONDER_RESULTS,
        inputs=tuple(assessed),
        sides=(items, dataset, *([own] if own else []), *answers),
        part_rows=_PART_ROWS,
    )


def _arguments(dimensions: tuple[str, ...], own: Stage | None) -> ItemResults:
    known = (*benchmark_tables.dataset(dimensions).columns, "semantic_type")
    return ItemResults(known=known, own=own is not None)
