"""Text in images, by PP-OCRv4 models that come with their package."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each
from normloom.core.models.needs import Needs
from normloom.core.models.product_model import ProductFiles
from normloom.core.stage import Output, quarantined, quarantined_frame
from normloom.readers.media import MediaFolder, image_of
from normloom.schemas.media import media_tables
from normloom.steps.args import Args
from normloom.steps.step import step


class Recognition(Args):
    """How the work is cut."""

    part_rows: int = Field(16, ge=1, exclude=True, description="images in one part")


@step(
    makes=media_tables.TEXTS_IN_IMAGES,
    name="ocr",
    needs=Needs(threads=1),
    libraries=("rapidocr-onnxruntime", "onnxruntime", "opencv-python-headless", "pillow", "numpy", "RapidFuzz"),
    fan_out=each(),
)
def read_text(
    rows: pl.DataFrame,
    args: Recognition,  # noqa: ARG001  # sizes of parts
    *,
    media: ProductFiles,
    caption: str | None = None,
) -> Output:
    """Return the text in each image (`item_id`, and where its bytes are in `media`).

    `caption` names a column with the text that is there, null if nobody knows it: the error is the edit distance over
    the longer of both, once case, spaces and punctuation are left out. The models know English and Chinese, and read
    other Latin scripts.
    """
    folder, read, aside = MediaFolder(media.path), [], []
    for row in rows.iter_rows(named=True):
        try:
            lines = _lines(folder.read(row))
        except OSError as error:
            aside.append(quarantined(row, "unreadable", str(error)))
            continue
        text = "\n".join(line for line, _ in lines)
        known = row[caption] if caption else None
        read.append(
            {
                "row_id": row["row_id"],
                "item_id": row["item_id"],
                "ocr_text": text,
                "confidence": sum(score for _, score in lines) / len(lines) if lines else None,
                "character_error": None if known is None else character_error(text, known),
            }
        )
    schema = {"row_id": pl.String(), **media_tables.TEXTS_IN_IMAGES.columns}
    return Output(rows=pl.DataFrame(read, schema=schema), quarantined=quarantined_frame(aside))


def character_error(read: str, caption: str) -> float:
    """Return the edit distance of two texts over the length of the longer one, 0 to 1, letters and digits only."""
    from rapidfuzz.distance import Levenshtein

    return float(Levenshtein.normalized_distance(_letters(read), _letters(caption)))


def _letters(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(letter for letter in plain if unicodedata.category(letter)[0] in "LMN")


def _lines(data: bytes) -> Sequence[tuple[str, float]]:
    import numpy as np

    pixels = np.ascontiguousarray(np.asarray(image_of(data))[:, :, ::-1])  # its models take blue first
    found, _ = _reader()(pixels)
    return [(str(text), float(score)) for _, text, score in found or ()]


@lru_cache(maxsize=1)
def _reader() -> Any:
    from rapidocr_onnxruntime import RapidOCR

    return RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)
