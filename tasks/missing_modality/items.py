"""A meme in a language, with its picture, its label and its folds."""

from __future__ import annotations

import hashlib

import polars as pl
from pydantic import Field

from normloom.core.errors import StageError
from normloom.core.fan_out import each
from normloom.core.stage import Output, dropped_rows
from normloom.schemas.media import modality_tables
from normloom.steps.args import Args
from normloom.steps.step import step

FOLDS = 5


class ItemSettings(Args):
    """When a meme is harmful, and how memes are split."""

    at_least: int = Field(3, ge=1, description="countries that label a harmful meme as hateful")
    folds: int = Field(FOLDS, ge=3, description="parts of the templates; each is the test set once")
    languages: tuple[str, ...] = Field((), description="languages that are used; empty: all")


@step(makes=modality_tables.ITEMS, name="items", fan_out=each(pl.col("texts").list.len(), by_part=True))
def pair_items(rows: pl.DataFrame, args: ItemSettings, media: pl.DataFrame) -> Output:
    """Return one row for each meme and language that has a text and a picture.

    `rows` are memes with their texts and labels, `media` the pictures with `meme_id` and `language`. Memes of one
    template are in one fold. Dropped are texts without a picture (`no_image`) and those of other languages
    (`not_asked`). Raises StageError if there are fewer templates than folds.
    """
    harmful = pl.col("labels").list.eval(pl.element().struct.field("label").cast(pl.Int64)).list.sum()
    texts = (
        rows.select("row_id", "meme_id", "template", "texts", label=(harmful >= args.at_least).cast(pl.Int8))
        .explode("texts")
        .drop_nulls("texts")
        .unnest("texts")
        .with_columns(item_id=pl.concat_str("meme_id", "language", separator=":"))
    )
    pictures = media.select("meme_id", "language", "media_id", "shard", "offset", "size").unique(
        ["meme_id", "language"], keep="first", maintain_order=True
    )
    joined = texts.join(pictures, on=["meme_id", "language"], how="left", maintain_order="left")
    asked = pl.col("language").is_in(args.languages) if args.languages else pl.lit(value=True)
    found = pl.col("media_id").is_not_null()
    kept = joined.filter(asked & found)
    templates = kept["template"].n_unique()
    if templates < args.folds:
        raise StageError(f"{templates} templates with pictures: expected at least one for each of {args.folds} folds")
    folds = fold_of_groups(kept, "template", args.folds).rename({"_fold": "fold"})
    memes = fold_of_groups(kept, "meme_id", args.folds).rename({"_fold": "random_fold"})
    items = kept.join(folds, on="template", maintain_order="left").join(memes, on="meme_id", maintain_order="left")
    return Output(
        rows=items.select("row_id", *modality_tables.ITEMS.columns, content="item_id"),
        dropped=pl.concat(
            [
                dropped_rows(joined.filter(~asked), reason="not_asked"),
                dropped_rows(joined.filter(asked & ~found), reason="no_image"),
            ]
        ),
        attempts=joined.height,
    )


def position(name: str) -> str:
    """Return where a name stands in an order that knows nothing of the rows."""
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


def fold_of_groups(items: pl.DataFrame, group: str, folds: int) -> pl.DataFrame:
    """Return the fold of each group: the largest groups first, each into the smallest fold."""
    sizes = sorted(items.group_by(group).len().iter_rows(), key=lambda pair: (-pair[1], position(pair[0])))
    held = [0] * folds
    found = {}
    for name, size in sizes:
        found[name] = held.index(min(held))
        held[found[name]] += size
    return pl.DataFrame(
        {group: list(found), "_fold": list(found.values())}, schema={group: pl.String, "_fold": pl.Int64}
    )
