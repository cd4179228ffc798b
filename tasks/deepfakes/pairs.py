"""What belongs together and what does not: the pairs that the contrastive stage learns from."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
from pydantic import Field

from normloom.core.errors import StageError
from normloom.core.fan_out import free
from normloom.core.rows.ids import seed
from normloom.core.stage import Output
from normloom.schemas.media import deepfake_tables
from normloom.schemas.media.deepfake_tables import FAKE, REAL
from normloom.steps.args import Args
from normloom.steps.step import step


class Pairing(Args):
    """How many negatives an anchor has."""

    negatives: int = Field(8, ge=1, description="fakes of each generator, drawn for each anchor")


@step(
    makes=deepfake_tables.PAIRS,
    libraries=("numpy",),
    fan_out=free("one row for each positive and negative of each view of each real item"),
)
def pairs(rows: pl.DataFrame, args: Pairing, *, views: tuple[str, ...]) -> Output:
    """Return the pairs of each real item in each view.

    Positives are its other views and the real items of its source in every view; negatives are fakes, each in one view
    in turn. Raises StageError without real items or fakes, and for one view alone without real items that share a
    source: then nothing belongs together.
    """
    real, fakes = rows.filter(label=REAL), rows.filter(label=FAKE)
    if real.is_empty() or fakes.is_empty():
        raise StageError(f"{real.height} real items and {fakes.height} fakes: expected some of both")
    of_source = dict(real.group_by("source_item").agg("item_id").iter_rows())
    by_generator = [
        group["item_id"].to_list() for _, group in fakes.sort("item_id").group_by("generator", maintain_order=True)
    ]
    ids = dict(rows.select("item_id", "row_id").iter_rows())
    made = [
        (anchor, view, other, seen, positive)
        for anchor, source in real.select("item_id", "source_item").iter_rows()
        for number, view in enumerate(views)
        for other, seen, positive in _of(anchor, view, number, of_source[source], by_generator, views, args.negatives)
    ]
    frame = pl.DataFrame(made, schema=deepfake_tables.PAIRS.columns, orient="row")
    if not frame["positive"].any():
        raise StageError("no pair is positive: there is one view, and no two real items share a source; add a view")
    content = pl.concat_str("anchor", "anchor_view", "other", "other_view", separator="\x1f")
    parents = pl.concat_list(pl.col("anchor", "other").replace_strict(ids)).list.unique(maintain_order=True)
    return Output(rows=frame.with_columns(parents=parents, content=content), attempts=frame.height)


def _of(
    anchor: str,
    view: str,
    number: int,
    together: list[str],
    by_generator: list[list[str]],
    views: tuple[str, ...],
    negatives: int,
) -> Iterator[tuple[str, str, bool]]:
    import numpy as np

    for item in together:
        for seen in views:
            if (item, seen) != (anchor, view):
                yield item, seen, True
    drawing = np.random.default_rng(seed(anchor, number))
    for fakes in by_generator:
        drawn = drawing.choice(len(fakes), min(negatives, len(fakes)), replace=False)
        for turn, place in enumerate(drawn):
            yield fakes[place], views[turn % len(views)], False
