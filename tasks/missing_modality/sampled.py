"""The items whose pictures are read by OCR."""

from __future__ import annotations

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each
from normloom.core.stage import Output, dropped_rows
from normloom.schemas.media import modality_tables
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.missing_modality.items import position


class Sampled(Args):
    """How many pictures are read."""

    per_language: int | None = Field(
        20, ge=0, description="pictures read of each language, 0 for none; null: all (about a second each)"
    )


@step(makes=modality_tables.ITEMS, name="ocr_items", fan_out=each())
def sampled(rows: pl.DataFrame, args: Sampled) -> Output:
    """Return the same memes in each language, the first by a hash; others are dropped as `not_read`."""
    memes = rows.group_by("meme_id").len().sort("meme_id")["meme_id"].to_list()
    taken = sorted(memes, key=lambda meme: position(f"ocr:{meme}"))[: args.per_language]
    read = pl.col("meme_id").is_in(taken)
    return Output(rows=rows.filter(read).drop("parents"), dropped=dropped_rows(rows.filter(~read), reason="not_read"))
