"""Vectors of images, sound and texts, by the encoder of a profile."""

from __future__ import annotations

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each
from normloom.core.product_model import ProductFiles
from normloom.core.protocol import Embedder, ImageEmbedder, SoundEmbedder
from normloom.readers.media import MediaFolder
from normloom.schemas import media_tables
from normloom.steps.args import Args
from normloom.steps.step import step

TEXT, IMAGE, SOUND = "text", "image", "sound"


class MediaEncoding(Args):
    """How the work is cut."""

    part_rows: int = Field(128, ge=1, exclude=True, description="images, sounds or texts in one part")


@step(makes=media_tables.VECTORS, name="image_vectors", libraries=("numpy", "pillow"), fan_out=each())
def encode_images(
    rows: pl.DataFrame,
    args: MediaEncoding,  # noqa: ARG001  # sizes of parts
    model: ImageEmbedder,
    *,
    media: ProductFiles,
    encoder: str,
) -> pl.DataFrame:
    """Return the vector of each image; `rows` say where its bytes are in `media` (`item_id`, `shard`, ...)."""
    folder = MediaFolder(media.path)
    vectors = model.embed_images([folder.read(row) for row in rows.iter_rows(named=True)])
    return _table(rows, vectors.tolist(), IMAGE, encoder)


@step(makes=media_tables.VECTORS, name="sound_vectors", libraries=("numpy", "soundfile"), fan_out=each())
def encode_sounds(
    rows: pl.DataFrame,
    args: MediaEncoding,  # noqa: ARG001  # sizes of parts
    model: SoundEmbedder,
    *,
    media: ProductFiles,
    encoder: str,
) -> pl.DataFrame:
    """Return the vector of each sound; `rows` are as those of `encode_images`."""
    folder = MediaFolder(media.path)
    vectors = model.embed_sounds([folder.read(row) for row in rows.iter_rows(named=True)])
    return _table(rows, vectors.tolist(), SOUND, encoder)


@step(makes=media_tables.VECTORS, name="text_vectors", libraries=("numpy",), fan_out=each())
def encode_texts(
    rows: pl.DataFrame,
    args: MediaEncoding,  # noqa: ARG001  # sizes of parts
    model: Embedder,
    *,
    column: str = "text",
    encoder: str,
) -> pl.DataFrame:
    """Return the vector of each text."""
    vectors = model.embed(rows[column].to_list())
    return _table(rows, vectors.tolist(), TEXT, encoder)


def _table(rows: pl.DataFrame, vectors: list[list[float]], modality: str, encoder: str) -> pl.DataFrame:
    return rows.select(
        "row_id",
        "item_id",
        modality=pl.lit(modality),
        vector=pl.Series(vectors, dtype=pl.List(pl.Float32)),
        encoder=pl.lit(encoder),
    )
