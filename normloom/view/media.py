"""Images and sound of the store, in forms that a browser shows and cannot run."""

from __future__ import annotations

import io

from normloom.core.errors import UsageError
from normloom.readers.media import MediaFolder, image_of
from normloom.schemas.media_tables import IMAGE, SPAN
from normloom.view.catalog import Catalog

SIDE = 1024  # pixels of an image at most
THUMBNAIL = 160


def medium(catalog: Catalog, media_id: str, *, small: bool = False) -> tuple[bytes, str]:
    """Return a medium's bytes and content type: images as JPEG of at most 1024 pixels, sound as it is.

    Raises UsageError if no table has it.
    """
    columns = ", ".join(f'"{column}"' for column in ("kind", "format", *SPAN))
    for name, manifest in catalog.media_tables():
        with catalog.reading() as connection:
            found = connection.execute(
                f'SELECT {columns} FROM "{name}" WHERE media_id = ? LIMIT 1',  # noqa: S608  # names of our own
                [media_id],
            ).fetchone()
        if found is None:
            continue
        kind, form, *span = found
        data = MediaFolder(catalog.store.folder(manifest.ref)).read(dict(zip(SPAN, span, strict=True)))
        return (
            (_jpeg(data, THUMBNAIL if small else SIDE), "image/jpeg")
            if kind == IMAGE
            else (data, f"{'video' if kind == 'video' else 'audio'}/{form}")
        )
    raise UsageError(f"no table holds the medium {media_id!r}")


def _jpeg(data: bytes, side: int) -> bytes:
    image = image_of(data)
    image.thumbnail((side, side))
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=85)
    return stream.getvalue()
