"""The released preference data set: prompts as messages, with a chosen and a rejected reply."""

from __future__ import annotations

import polars as pl

from normloom.core.fan_out import each
from normloom.schemas.training import preference_tables
from normloom.steps.step import step
from normloom.tasks import bounds


@step(makes=preference_tables.RELEASED_PAIRS, name="publish", part_rows=10_000, bound=bounds.as_many, fan_out=each())
def release_pairs(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs in the columns that preference trainers read: prompt, chosen and rejected as messages."""
    return rows.select(
        "row_id",
        *(name for name in preference_tables.PAIRS.columns if name not in {"messages", "chosen", "rejected"}),
        prompt="messages",
        chosen=_said("chosen"),
        rejected=_said("rejected"),
    )


def _said(column: str) -> pl.Expr:
    return pl.concat_list(pl.struct(role=pl.lit("assistant"), content=pl.col(column)))
