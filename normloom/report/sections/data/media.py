"""A few images, sounds and frames of videos as they are; pictures are blurred until they are clicked."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import polars as pl

from normloom.readers.media import MediaFolder, frames_of, image_of
from normloom.report.blocks import Block, Medium, Note
from normloom.report.material import Material
from normloom.report.section import Data, Section
from normloom.schemas.media.media_tables import IMAGE, SOUND, SPAN, VIDEO

COLUMNS = ("media_id", "kind", "origin", "format", "normalised", *SPAN)
EACH = 9  # of each table
SIDE = 240  # pixels of a thumbnail
MOST_SOUND = 500_000  # bytes of a sound that the page holds


def collect(material: Material) -> Data | None:
    """Return thumbnails of images and short sounds, the first by their ids, as data URLs."""
    shown = []
    for stage in material.having(*COLUMNS):
        manifest = material.manifests[stage]
        if not any(part.attached for part in manifest.parts):
            continue
        folder = MediaFolder(material.store.folder(manifest.ref))
        rows = material.rows(stage).unique("media_id", keep="any").sort("media_id").head(EACH).collect()
        shown += [_shown(row, folder) for row in rows.iter_rows(named=True)]
    changed = sum(
        material.rows(stage).select(pl.col("normalised").count()).collect().item()
        for stage in material.having(*COLUMNS)
    )
    return {"media": shown, "normalised": changed} if shown else None


def _shown(row: dict[str, Any], folder: MediaFolder) -> dict[str, Any]:
    size, seconds = f"{row['width']} x {row['height']}", f"{row['seconds'] or 0:.1f} s"
    told = {IMAGE: size, SOUND: seconds, VIDEO: f"{size}, {seconds}; one frame is shown"}[row["kind"]]
    facts = {"format": f"{row['format']}, {told}", "normalised": row["normalised"] or "no"}
    data = folder.read(row)
    if row["kind"] == SOUND:
        source = _url(f"audio/{row['format']}", data) if row["size"] <= MOST_SOUND else ""
        return {"origin": row["origin"], "kind": SOUND, "facts": facts, "source": source}
    picture = data if row["kind"] == IMAGE else frames_of(data, 1)[0]
    return {"origin": row["origin"], "kind": IMAGE, "facts": facts, "source": thumbnail(picture)}


def thumbnail(data: bytes) -> str:
    """Return a small JPEG of an image as a data URL."""
    image = image_of(data)
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=75)
    return _url("image/jpeg", stream.getvalue())


def _url(form: str, data: bytes) -> str:
    return f"data:{form};base64,{base64.b64encode(data).decode()}"


def draw(data: Data) -> Iterator[Block]:
    """Show them."""
    yield Note(
        text="A few images, sounds and frames of videos, chosen by their ids and not by what they show. They may be "
        f"offensive: images are blurred until they are clicked. Normalised on the way in: {data['normalised']}."
    )
    for medium in data["media"]:
        yield Medium(title=medium["origin"], kind=medium["kind"], source=medium["source"], facts=medium["facts"])


SECTION = Section(name="media", title="Images, sound and videos", collect=collect, draw=draw)
