"""Vectors of images, videos, sound and texts, by the encoder of a profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each
from normloom.core.models.product_model import ProductFiles
from normloom.core.models.protocol import Embedder, ImageEmbedder, SoundEmbedder
from normloom.readers.media import MediaFolder, frames_of
from normloom.schemas.media import media_tables
from normloom.steps.args import Args
from normloom.steps.step import step

if TYPE_CHECKING:
    import numpy as np

TEXT, IMAGE, SOUND, VIDEO = "text", "image", "sound", "video"
FRAMES = 16  # of a video, evenly spaced


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


@step(makes=media_tables.VECTORS, name="sound_vectors", libraries=("numpy", "soundfile", "av"), fan_out=each())
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


@step(makes=media_tables.VECTORS, name="video_vectors", libraries=("numpy", "pillow", "av"), fan_out=each())
def encode_videos(
    rows: pl.DataFrame,
    args: MediaEncoding,  # noqa: ARG001  # sizes of parts
    model: ImageEmbedder,
    *,
    media: ProductFiles,
    encoder: str,
) -> pl.DataFrame:
    """Return the vector of each video: mean and spread, side by side, of the vectors of 16 frames, evenly spaced."""
    folder = MediaFolder(media.path)
    vectors = [embedded_video(model, folder.read(row)).tolist() for row in rows.iter_rows(named=True)]
    return _table(rows, vectors, VIDEO, encoder)


def embedded_video(model: ImageEmbedder, data: bytes) -> np.ndarray:
    """Return mean and spread of the vectors of a video's frames, (2 x dimensions,) float32."""
    import numpy as np

    frames = model.embed_images(frames_of(data, FRAMES))
    return np.concatenate([frames.mean(0), frames.std(0)]).astype(np.float32)


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
