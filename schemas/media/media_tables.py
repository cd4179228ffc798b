"""What tables of images and sound hold: one contract for each kind of table. Their bytes are files of the product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from normloom.core.contract import Check, Contract
from normloom.schemas.tables import NOT_EMPTY

IMAGE, SOUND, VIDEO = "image", "sound", "video"
SPAN = ("shard", "offset", "size")  # where the bytes of a medium are among the files of its product

_MEDIA: dict[str, pl.DataType] = {
    "media_id": pl.String(),  # of the stored bytes: the same bytes are stored once
    "kind": pl.String(),  # image, sound or video
    "format": pl.String(),
    "width": pl.Int64(),  # of images and videos
    "height": pl.Int64(),
    "sample_rate": pl.Int64(),  # of sound, and of videos that have sound
    "channels": pl.Int64(),
    "seconds": pl.Float64(),
    "origin": pl.String(),  # file, member of an archive or record
    "normalised": pl.String(),  # what was changed, null if the bytes are the source's
    "phash": pl.UInt64(),  # perceptual hash of an image that has structure
    "shard": pl.String(),
    "offset": pl.Int64(),
    "size": pl.Int64(),
}
_NULLABLE = frozenset({"width", "height", "sample_rate", "channels", "seconds", "normalised", "phash"})


def media_contract(keep: tuple[str, ...]) -> Contract:
    """Return the contract of media with these columns of their source, as text."""
    return Contract(
        columns={**_MEDIA, **dict.fromkeys(keep, pl.String())},
        nullable=_NULLABLE | frozenset(keep),
        keys=("origin",),
        checks=(NOT_EMPTY,),
    )


def of_media(given: Mapping[str, Any]) -> Contract:
    """Return the contract of media for the arguments of a step that reads them (`keep`)."""
    return media_contract(tuple(given["keep"]))


DISTINCT = Contract(
    columns={name: _MEDIA[name] for name in ("media_id", "origin", "phash")},
    nullable=frozenset({"phash"}),
    keys=("origin",),
)

VECTORS = Contract(
    columns={
        "item_id": pl.String(),
        "modality": pl.String(),
        "vector": pl.List(pl.Float32()),
        "encoder": pl.String(),
    },
    keys=("item_id", "modality"),
    checks=(NOT_EMPTY,),
)

TEXTS_IN_IMAGES = Contract(
    columns={
        "item_id": pl.String(),
        "ocr_text": pl.String(),  # lines from top to bottom; empty if nothing was read
        "confidence": pl.Float64(),  # mean over the lines
        "character_error": pl.Float64(),  # against the caption, 0 to 1; null without one
    },
    nullable=frozenset({"confidence", "character_error"}),
    keys=("item_id",),
    checks=(
        Check(
            expectation="expect_column_values_to_be_between",
            arguments={"column": "character_error", "min_value": 0, "max_value": 1},
        ),
    ),
)
