"""The text of each meme: what its source gives, or what OCR reads in its picture. And memes that splits share."""

from __future__ import annotations

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each, free
from normloom.core.stage import Output, dropped_rows
from normloom.near_duplicates.features import Features
from normloom.schemas.media import meme_tables
from normloom.schemas.media.media_tables import SPAN
from normloom.schemas.media.meme_tables import NEAR_TEST, TRAIN
from normloom.steps.args import Args
from normloom.steps.step import step

_WHERE = ("media_id", *SPAN)


class ReadPictures(Args):
    """Which pictures are read."""

    check: int = Field(8, ge=0, description="pictures whose text is known that are read too, to count the errors")


class Apart(Args):
    """How alike two memes are that must not be on both sides of a split."""

    tau: int = Field(6, ge=1, le=20, description="bits of 64 below which pictures are near")
    jaccard: float = Field(0.7, gt=0, le=1, description="shingles that near texts share")


@step(makes=meme_tables.UNREAD, fan_out=free("memes without a text, and some that have one"))
def unread(rows: pl.DataFrame, args: ReadPictures, media: pl.DataFrame) -> Output:
    """Return the pictures that are read: those of memes without a text, and the first `check` of the others."""
    pictures = _placed(rows, media).filter(pl.col("media_id").is_not_null())
    lacking = pl.col("text").is_null()
    taken = pl.concat([pictures.filter(lacking), pictures.filter(~lacking).head(args.check)])
    made = taken.select("row_id", "text", *_WHERE, item_id="meme_id")
    return Output(rows=made, attempts=made.height)


@step(makes=meme_tables.READ_MEMES, name="texts", fan_out=each())
def settle_texts(rows: pl.DataFrame, media: pl.DataFrame | None = None, read: pl.DataFrame | None = None) -> Output:
    """Return the memes with their text and where their picture is; those without either text are dropped: `no_text`."""
    placed = _placed(rows, media)
    ocr = None if read is None else read.select(meme_id="item_id", ocr=pl.col("ocr_text").str.strip_chars())
    placed = (
        placed.with_columns(ocr=pl.lit(""))
        if ocr is None
        else placed.join(ocr, on="meme_id", how="left", maintain_order="left")
    )
    own, seen = pl.col("text").is_not_null(), pl.col("ocr").fill_null("") != ""
    told = placed.with_columns(
        text=pl.coalesce("text", "ocr"), read_by=pl.when(own).then(pl.lit("source")).otherwise(pl.lit("ocr"))
    )
    return Output(
        rows=told.filter(own | seen).select("row_id", *meme_tables.READ_MEMES.columns),
        dropped=dropped_rows(told.filter(~own & ~seen), reason="no_text"),
    )


@step(
    makes=meme_tables.NEAR_MEMES,
    libraries=("numba", "numpy"),
    fan_out=free("one row for each training meme that is near one of another split"),
)
def near_memes(rows: pl.DataFrame, args: Apart, media: pl.DataFrame | None = None) -> Output:
    """Return the training memes whose text or picture is nearly that of a meme of another split (C3)."""
    from normloom.near_duplicates.find import find_known
    from normloom.near_duplicates.simhash import fingerprints

    features = Features()
    learned, held = rows.filter(split=TRAIN), rows.filter(pl.col("split") != TRAIN)
    made: dict[str, dict[str, object]] = {}

    def file(place: int, keeper: int, by: str, distance: int) -> None:
        meme = learned.row(place, named=True)
        row = {"row_id": meme["row_id"], "near_id": held["meme_id"][keeper], "by": by, "distance": distance}
        made.setdefault(meme["meme_id"], {"meme_id": meme["meme_id"], **row})

    if not held.is_empty() and not learned.is_empty():
        known = held["text"].to_list()
        found = find_known(
            learned["text"].to_list(),
            known,
            fingerprints(known, features),
            features=features,
            tau=args.tau,
            jaccard=args.jaccard,
            alike=args.jaccard,
        )
        for place, keeper, distance, _ in found.filter(pl.col("keeper") < held.height).iter_rows():
            file(place, keeper, "text", distance)
    if media is not None:
        hashes = media.select("media_id", "phash").unique("media_id", maintain_order=True)
        codes = [side.join(hashes, on="media_id", how="left", maintain_order="left") for side in (learned, held)]
        for place, keeper, distance in _near_pictures(codes[0]["phash"], codes[1]["phash"], args.tau):
            file(place, keeper, "picture", distance)
    schema = {"row_id": pl.String(), **meme_tables.NEAR_MEMES.columns}
    frame = pl.DataFrame(list(made.values()), schema=schema)
    return Output(rows=frame, attempts=frame.height)


@step(makes=meme_tables.READ_MEMES, name="items", fan_out=each())
def keep_apart(rows: pl.DataFrame, near: pl.DataFrame) -> pl.DataFrame:
    """Return all memes; training memes that are near one of another split are `near_test`: nothing learns from them."""
    leaks = pl.col("meme_id").is_in(near["meme_id"].implode())
    return rows.drop("parents").with_columns(split=pl.when(leaks).then(pl.lit(NEAR_TEST)).otherwise("split"))


def _placed(rows: pl.DataFrame, media: pl.DataFrame | None) -> pl.DataFrame:
    if media is None:
        return rows.with_columns(
            pl.lit(None, dtype=meme_tables.READ_MEMES.columns[name]).alias(name) for name in _WHERE
        )
    first = media.select("meme_id", *_WHERE).unique("meme_id", keep="first", maintain_order=True)
    return rows.join(first, on="meme_id", how="left", maintain_order="left")


def _near_pictures(learned: pl.Series, held: pl.Series, tau: int) -> list[tuple[int, int, int]]:
    """Return (training meme, other meme, distance) of the nearest picture under tau bits, if there is one."""
    import numpy as np

    places = [held_place for held_place, code in enumerate(held) if code is not None]
    if not places:
        return []
    codes = held.drop_nulls().to_numpy().astype(np.uint64)
    near = []
    for place, code in enumerate(learned):
        if code is not None:
            apart = np.bitwise_count(codes ^ np.uint64(code))
            best = int(apart.argmin())
            if apart[best] < tau:
                near.append((place, places[best], int(apart[best])))
    return near
