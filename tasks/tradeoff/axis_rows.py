"""Axis rows: prompts of all axes with their split, from sets and from published tables."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from pydantic import Field

from normloom.core.errors import SourceError
from normloom.core.fan_out import each, free
from normloom.core.rows.text import normalise
from normloom.core.stage import Output, dropped_rows
from normloom.schemas import tables
from normloom.schemas.training import alignx_tables
from normloom.schemas.training.alignx_tables import DEV, TEST, TRAIN
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.tradeoff.axis_sets import SPLITS, known_as

_ALIGNED = "aligned"
_FIRST = {TRAIN: -3.0, TEST: -2.0, DEV: -1.0}


class SplittingAxes(Args):
    """Which prompts are taken, and which of them train, choose and test."""

    limit: int | None = Field(None, ge=1, description="prompts of each axis, drawn by content; null: all")
    dev_share: float = Field(0.2, gt=0, lt=1, description="share of the prompts that calibrators are fitted on")
    test_share: float = Field(0.2, gt=0, lt=1, description="share of the prompts that figures are computed from")
    seed: int = Field(42, description="seed of the draw and of the split")


@step(makes=alignx_tables.AXIS_ROWS, fan_out=each())
def axis_rows(rows: pl.DataFrame, args: SplittingAxes) -> Output:
    """Return the prompts of all axes with their split.

    The split is drawn from the content (what is said, in NFKC, case folded), so that the same prompt is on one side
    whatever set or axis it is in; a split that its source gives is kept. Prompts beyond the limit are dropped as
    `limit`. Raises SourceError if an axis is left without training or test prompts.
    """
    contents = [content_of(row) for row in rows.select("history", "prompt").iter_rows(named=True)]
    given: dict[str, str] = {}
    for content, split in zip(contents, rows["given_split"], strict=True):
        if split is not None:
            given.setdefault(content, split)
    split = [given.get(one) or _split(_place(one, "split", args.seed), args) for one in contents]
    order = [_place(one, "draw", args.seed) for one in contents]
    told = rows.with_columns(pl.Series("split", split, dtype=pl.String), pl.Series("_order", order))
    first = pl.col("_order").rank("ordinal").over("axis", "split") == 1
    place = pl.when(first).then(pl.col("split").replace_strict(_FIRST, default=0.0)).otherwise(pl.col("_order"))
    rank = place.rank("ordinal").over("axis")  # a limit leaves one of each split
    kept = told.with_columns(_rank=rank).filter(pl.col("_rank") <= (args.limit or told.height))
    _hold(kept)
    beyond = told.filter(~pl.col("row_id").is_in(kept["row_id"].implode())).drop("_order")
    return Output(
        rows=kept.select("row_id", *alignx_tables.AXIS_ROWS.columns),
        dropped=dropped_rows(beyond, reason="limit"),
    )


@step(makes=alignx_tables.AXIS_SET, name="axis_set_published", fan_out=free("one row for each prompt and dimension"))
def published_axes(rows: pl.DataFrame, *, dimensions: Sequence[str]) -> Output:
    """Return a row for each prompt and dimension of a published table in which the prompt has a label.

    Aligned responses are good replies, misaligned ones those to avoid; the table's split is kept. Raises SourceError
    for a table without these columns.
    """
    needed = ("prompt_id", "prompt", "response", "alignment", "split", *dimensions)
    if missing := [name for name in needed if name not in rows.columns]:
        raise SourceError(f"the published table has no column {missing[0]!r}; it has {', '.join(rows.columns)}")
    made: dict[tuple[str, str], dict[str, Any]] = {}
    parents: dict[tuple[str, str], list[str]] = defaultdict(list)
    for record in rows.iter_rows(named=True):
        for axis in dimensions:
            if not record[axis]:
                continue
            row = made.setdefault((record["prompt_id"], axis), _published(record, axis))
            row["reference" if record["alignment"] == _ALIGNED else "bad_reference"].append(record["response"])
            parents[record["prompt_id"], axis].append(record["row_id"])
    if not made:
        raise SourceError(f"the published table has no prompt with a label of {', '.join(dimensions)}")
    frame = [{"parents": parents[key], "content": known_as(row), **row} for key, row in made.items()]
    schema = tables.named_by_content(alignx_tables.AXIS_SET)
    return Output(rows=pl.DataFrame(frame, schema=schema), attempts=len(frame))


def _published(record: Mapping[str, Any], axis: str) -> dict[str, Any]:
    return {
        "axis": axis,
        "history": record["messages"][:-2] or None if record.get("messages") else None,
        "prompt": record["prompt"],
        "reference": [],
        "bad_reference": [],
        "given_split": SPLITS.get(record["split"]),
        "origin": "published",
        "source_row": None,
    }


def content_of(row: Mapping[str, Any]) -> str:
    """Return the content by which prompts are the same: all that is said, in one form."""
    said = [f"{turn['role']}: {turn['content']}" for turn in row["history"] or ()]
    return "\x1f".join(normalise(text) for text in (*said, row["prompt"]))


def _place(content: str, purpose: str, seed: int) -> float:
    """Return a number in [0, 1) drawn from a content."""
    digest = hashlib.blake2b(f"{purpose}\x1f{seed}\x1f{content}".encode(), digest_size=7).digest()
    return int.from_bytes(digest) / 2**56


def _split(place: float, args: SplittingAxes) -> str:
    if place < args.test_share:
        return TEST
    return DEV if place < args.test_share + args.dev_share else TRAIN


def _hold(rows: pl.DataFrame) -> None:
    for (axis,), own in rows.group_by("axis", maintain_order=True):
        for split in (TRAIN, TEST):
            if own.filter(split=split).is_empty():
                raise SourceError(
                    f"axis {axis!r}: none of its {own.height} prompts is in the split {split!r}: "
                    "give more prompts, or another source.seed"
                )
