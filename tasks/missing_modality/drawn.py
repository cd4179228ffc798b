"""Pictures of our own for memes that have none: coloured shapes by template, with the text of the meme."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import polars as pl

from normloom.core.fan_out import free
from normloom.core.rows.ids import seed
from normloom.core.run import Run
from normloom.core.stage import Output
from normloom.readers.media import MediaLimits, Pack, decode
from normloom.schemas import tables
from normloom.schemas.media.media_tables import media_contract
from normloom.steps.step import step
from normloom.tasks.media.read_media import media_output, media_row

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as PixelFont

KEPT = ("meme_id", "language")
SIDE = 320
_LETTERS, _EDGE, _SHAPES = 22, 8, 6


@step(
    makes=media_contract(KEPT),
    name="media",
    files="media",
    libraries=("pillow", "numpy", "scipy", "soundfile", "av"),
    fan_out=free("one row for each text of each meme"),
)
def draw_memes(rows: pl.DataFrame, *, run: Run) -> Output:
    """Return a picture for each text of each meme; memes of one template share its shapes and colours.

    The typeface that Pillow brings has Latin letters only: texts in other scripts are drawn as empty boxes.
    """
    kept, parents = [], []
    with Pack(run.files) as pack:
        for meme in rows.iter_rows(named=True):
            for text in meme["texts"]:
                picture = drawn(meme["template"], text["text"])
                origin = f"{meme['meme_id']}-{text['language']}.png"
                row = media_row(decode(picture, origin, MediaLimits()), pack, origin=origin)
                kept.append({**row, "meme_id": meme["meme_id"], "language": text["language"]})
                parents.append([meme["row_id"]])
    made = media_output(kept, keep=KEPT)
    return Output(rows=made.rows.with_columns(parents=pl.Series(parents, dtype=tables.TEXTS)), attempts=len(kept))


def drawn(template: str, text: str) -> bytes:
    """Return a picture as PNG: shapes drawn from the template's name, the first line above, the others below."""
    from PIL import ImageFont

    image = _background(template)
    font = ImageFont.load_default(_LETTERS)
    upper, _, lower = text.partition("\n")
    _write(image, upper, font, top=True)
    _write(image, lower.replace("\n", " "), font, top=False)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def _background(template: str) -> Image:
    import numpy as np
    from PIL import Image, ImageDraw

    drawing = np.random.default_rng(seed(template, 0))
    image = Image.new("RGB", (SIDE, SIDE), _colour(drawing))
    pen = ImageDraw.Draw(image)
    for _ in range(_SHAPES):
        left, top = (int(value) for value in drawing.integers(0, SIDE * 3 // 4, 2))
        size = int(drawing.integers(SIDE // 8, SIDE // 2))
        shape = pen.ellipse if drawing.random() < 0.5 else pen.rectangle  # noqa: PLR2004  # one or the other
        shape((left, top, left + size, top + size), fill=_colour(drawing))
    return image


def _colour(drawing: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in drawing.integers(40, 200, 3))
    return red, green, blue


def _write(image: Image, text: str, font: FreeTypeFont | PixelFont, *, top: bool) -> None:
    """Write a text in white with a black edge, broken into lines that fit."""
    from PIL import ImageDraw

    pen = ImageDraw.Draw(image)
    lines, line = [], ""
    for word in text.split():
        wider = f"{line} {word}".strip()
        if line and pen.textlength(wider, font) > SIDE - 2 * _EDGE:
            lines.append(line)
            line = word
        else:
            line = wider
    whole = "\n".join([*lines, line])
    y = _EDGE if top else SIDE - _EDGE
    anchor = "ma" if top else "md"
    pen.multiline_text(
        (SIDE / 2, y),
        whole,
        "white",
        font,
        anchor,
        align="center",
        stroke_width=2,
        stroke_fill="black",
    )
