"""Choose one aligned and one misaligned response for each prompt and generator."""

from __future__ import annotations

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output, dropped_rows
from normloom.schemas import tables
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.rejection.resample import ALIGNMENTS

_PART_ROWS = 1024
_DRAW = ("prompt_id", "generator")


@step(
    makes=tables.SELECTED,
    part_rows=_PART_ROWS,
    sides_on="prompt_id",
    reads=(),
    bound=bounds.of_sides,
    fan_out=free("the candidates of the sides are chosen, not the prompts"),
)
def select(rows: pl.DataFrame, *rounds: pl.DataFrame, pairs: bool = True) -> Output:
    """Keep the qualifying candidate with the widest margin; ties go to the smallest row id.

    `rows` are prompts, `rounds` the judged candidates that were drawn for them, returned prompt by prompt. With `pairs`
    a prompt that lacks one of the two is discarded for that generator, as in the paper.
    """
    prompts = rows.select(prompt_id="row_id").with_row_index("_prompt")
    candidates = (
        pl.concat(rounds).join(prompts, on="prompt_id", maintain_order="left").sort("_prompt", maintain_order=True)
    )
    qualifies = pl.col("verdict").is_in(ALIGNMENTS)
    best = (
        candidates.filter(qualifies)
        .sort("margin", "row_id", descending=[True, False])
        .group_by(*_DRAW, "verdict")
        .agg(_best=pl.col("row_id").first())
    )
    complete = best.group_by(_DRAW).agg(_complete=pl.len() == len(ALIGNMENTS))
    ranked = candidates.join(best, on=[*_DRAW, "verdict"], how="left", maintain_order="left").join(
        complete, on=_DRAW, how="left", maintain_order="left"
    )
    outdone = qualifies & (pl.col("row_id") != pl.col("_best"))
    alone = qualifies & ~pl.col("_complete") & pairs
    chosen = ranked.filter(qualifies & ~outdone & ~alone)
    dropped = dropped_rows(
        ranked.filter(~qualifies | outdone | alone),
        reason=pl.when(~qualifies)
        .then(pl.format("discarded: {}", "reason"))
        .when(outdone)
        .then(pl.lit("narrower_margin"))
        .otherwise(pl.lit("incomplete_pair")),
        winner=pl.when(outdone).then("_best"),
        leaving_out=("_prompt", "_best", "_complete"),
    )
    released = chosen.rename({"verdict": "alignment"}).select("row_id", *tables.SELECTED.columns)
    return Output(
        rows=released,
        dropped=dropped,
        attempts=candidates.height,
        metrics={"pairs": released.filter(alignment="aligned").height},
    )
