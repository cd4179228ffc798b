"""The bytes of media as files of a product: uncompressed tar files, each medium once, found by its span.

Any tar program opens them. A row of a media table says where its bytes are (`shard`, `offset`, `size`), so a step
reads those of its own rows and nothing else.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from normloom.core.errors import StoreError

SHARD_BYTES = 256_000_000


class Span(NamedTuple):
    """Where the bytes of a medium are."""

    shard: str
    offset: int
    size: int


class Pack:
    """Writes media into a folder; those with an id that is there already are not written again."""

    def __init__(self, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._spans: dict[str, Span] = {}
        self._shards = 0
        self._open: tarfile.TarFile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._open is not None:
            self._open.close()

    def add(self, media_id: str, suffix: str, data: bytes) -> Span:
        """Store a medium and return its span."""
        if media_id not in self._spans:
            shard = self._shard()
            member = tarfile.TarInfo(f"{media_id}.{suffix}")
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
            shard.members.clear()  # type: ignore[attr-defined]  # it keeps all of them, and nobody asks for them
            stored = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            self._spans[media_id] = Span(Path(str(shard.name)).name, shard.offset - stored, len(data))
        return self._spans[media_id]

    def _shard(self) -> tarfile.TarFile:
        """Return the tar file that is written to, the next one if it is full."""
        if self._open is not None and self._open.offset > self._shard_bytes:
            self._open.close()
            self._open = None
        if self._open is None:
            path = self._folder / f"media-{self._shards:05d}.tar"
            self._open = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  # closed with the pack
            self._shards += 1
        return self._open


class MediaFolder:
    """Reads media that were packed into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, row: Mapping[str, Any]) -> bytes:
        """Return the bytes of a medium by its row (`shard`, `offset`, `size`). Raises StoreError."""
        path = self._folder / Path(row["shard"]).name
        try:
            with path.open("rb") as stream:
                stream.seek(row["offset"])
                data = stream.read(row["size"])
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror or error})") from error
        if len(data) != row["size"]:
            raise StoreError(f"{path} ends before byte {row['offset'] + row['size']}: it is damaged; build it again")
        return data
