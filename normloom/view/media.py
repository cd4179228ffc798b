"""Images and sound of the store, in forms that a browser shows and cannot run."""

from __future__ import annotations

import io

from normloom.core.errors import UsageError
from normloom.readers.media import MediaFolder, image_of
from normloom.schemas.media.media_tables import IMAGE, SPAN, VIDEO
from normloom.view.catalog import Catalog

SIDE = 1024  # pixels of an image at most


def medium(catalog: Catalog, media_id: str) -> tuple[bytes, str]:
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
        if kind == IMAGE:
            return _jpeg(data), "image/jpeg"
        return data, f"{'video' if kind == VIDEO else 'audio'}/{form}"
    raise UsageError(f"no table holds the medium {media_id!r}")


def _jpeg(data: bytes) -> bytes:
    image = image_of(data)
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=85)
    return stream.getvalue()
