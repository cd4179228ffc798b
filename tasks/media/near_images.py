"""Removing near-identical images: perceptual hashes that differ in few bits, by the engine that compares texts."""

from __future__ import annotations

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each
from normloom.core.stage import Output, dropped_rows
from normloom.near_duplicates.features import Features
from normloom.schemas.media import media_tables
from normloom.steps.args import Args
from normloom.steps.step import step


class NearImages(Args):
    """How alike two images must be to be the same."""

    tau: int = Field(6, ge=1, le=20, description="bits of 64 below which perceptual hashes say the same image")


@step(makes=media_tables.DISTINCT, fan_out=each(), libraries=("numba", "numpy"))
def near_images(rows: pl.DataFrame, args: NearImages) -> Output:
    """Return the media that repeat no earlier one.

    A removed one names the nearest kept one as its winner, and its payload the `distance` of their hashes. Reasons:
    `exact_duplicate` (the same bytes) and `near_duplicate`. Sounds, and images without structure, are compared by
    their bytes only.
    """
    from normloom.near_duplicates.find import find_duplicates

    placed = rows.select("row_id", "media_id", "origin", "phash").with_row_index("_position")
    hashed, others = placed.filter(pl.col("phash").is_not_null()), placed.filter(pl.col("phash").is_null())
    positions = hashed["_position"]
    found = find_duplicates(
        hashed["media_id"].to_list(), features=Features(), tau=args.tau, jaccard=0, codes=hashed["phash"].to_numpy()
    )
    pairs = [(positions[index], positions[keeper], distance) for index, keeper, distance, _ in found.iter_rows()]
    first = others.group_by("media_id").agg(_winner=pl.col("_position").min())
    same = others.join(first, on="media_id", maintain_order="left").filter(pl.col("_position") != pl.col("_winner"))
    pairs += [(position, winner, 0) for position, winner in same.select("_position", "_winner").iter_rows()]
    gone = pl.DataFrame(
        pairs, schema={"_position": pl.UInt32, "_winner": pl.UInt32, "distance": pl.Int64}, orient="row"
    )
    winners = placed.select(_winner="_position", winner="row_id", _media="media_id")
    told = placed.join(gone, on="_position", maintain_order="left").join(winners, on="_winner", maintain_order="left")
    kept = placed.join(gone, on="_position", how="anti", maintain_order="left").drop("_position")
    reason = pl.when(pl.col("media_id") == pl.col("_media"))
    return Output(
        rows=kept,
        dropped=dropped_rows(
            told,
            reason=reason.then(pl.lit("exact_duplicate")).otherwise(pl.lit("near_duplicate")),
            winner=pl.col("winner"),
            leaving_out=("_position", "_winner", "_media", "winner"),
        ),
        metrics={"duplicates": float(gone.height)},
    )
