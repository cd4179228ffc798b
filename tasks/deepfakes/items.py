"""A recording with its medium, the fold of its speaker, and whether networks may learn from it."""

from __future__ import annotations

import polars as pl
from pydantic import Field

from normloom.core.errors import StageError
from normloom.core.fan_out import each
from normloom.core.stage import Output, dropped_rows
from normloom.schemas.media import deepfake_tables
from normloom.schemas.media.deepfake_tables import REAL
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.missing_modality.items import fold_of_groups, position


class Holding(Args):
    """What is held out of training."""

    folds: int = Field(6, ge=2, description="parts of the speakers; each is held out once with each generator")
    development: float = Field(0.2, gt=0, lt=1, description="share of the sources that only set thresholds")


@step(makes=deepfake_tables.ITEMS, name="items", fan_out=each())
def held_items(rows: pl.DataFrame, args: Holding, media: pl.DataFrame, *, key: str, kinds: tuple[str, ...]) -> Output:
    """Return the recordings that have a medium, with the fold of their speaker.

    Speakers with real recordings are spread over the folds, as many as there are if these are fewer; voices that only
    generators have are in none. `media` says whose it is in its column `key`; `kinds` are what the views need: `sound`,
    `image`. Dropped are recordings without a medium (`no_media`) and those that lack sound or frames (`no_sound`,
    `no_frames`). Raises StageError if there are fewer than two speakers with real recordings.
    """
    columns = ("media_id", "kind", "sample_rate", "width", "shard", "offset", "size")
    found = media.select(pl.col(key).alias("item_id"), *columns).unique("item_id", keep="first", maintain_order=True)
    joined = rows.join(found, on="item_id", how="left", maintain_order="left")
    lacks = (
        pl.when(pl.col("media_id").is_null())
        .then(pl.lit("no_media"))
        .when(pl.lit("sound" in kinds) & pl.col("sample_rate").is_null())
        .then(pl.lit("no_sound"))
        .when(pl.lit("image" in kinds) & pl.col("width").is_null())
        .then(pl.lit("no_frames"))
    )
    told = joined.with_columns(_lacks=lacks)
    kept = told.filter(pl.col("_lacks").is_null())
    real = kept.filter(label=REAL)
    if (speakers := real["speaker"].n_unique()) < 2:  # noqa: PLR2004  # one to learn from, one to test
        raise StageError(f"{speakers} speakers with real recordings: expected at least two, one of them held out")
    folds = fold_of_groups(real, "speaker", min(args.folds, speakers)).rename({"_fold": "fold"})
    sources = sorted(kept["source_item"].unique(), key=lambda source: position(f"development:{source}"))
    held = sources[: max(round(args.development * len(sources)), 1)]
    items = kept.join(folds, on="speaker", how="left", maintain_order="left").with_columns(
        development=pl.col("source_item").is_in(held)
    )
    gone = told.filter(pl.col("_lacks").is_not_null())
    return Output(
        rows=items.select("row_id", *deepfake_tables.ITEMS.columns),
        dropped=dropped_rows(gone, reason=pl.col("_lacks"), leaving_out=("_lacks", *columns)),
        attempts=joined.height,
    )
