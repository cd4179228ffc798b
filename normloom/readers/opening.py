"""Opening a file of a source: what it is by its name, and its bytes without their compression."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
from collections.abc import Iterable
from pathlib import Path
from typing import IO, cast

from normloom.core.errors import SourceError
from normloom.readers.records import one_line

COMPRESSIONS = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd", ".xz": "xz"}
FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".txt": "txt",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".xlsx": "xlsx",
}
COMPRESSIBLE = frozenset({"csv", "tsv", "jsonl", "json", "txt"})


def format_of(name: str) -> tuple[str, str | None] | None:
    """Return the format and compression that a file's name says, None if it says no format that is read."""
    path = Path(name.lower())
    compression = COMPRESSIONS.get(path.suffix)
    form = FORMATS.get(Path(path.stem).suffix if compression else path.suffix)
    if form is None or (compression and form not in COMPRESSIBLE):
        return None
    return form, compression


def open_raw(path: Path) -> io.BufferedReader:
    """Return the bytes of a regular file. Raises SourceError."""
    try:
        if path.exists() and not path.is_file():
            raise SourceError(f"{path} is not a regular file: copy its content into one")
        return path.open("rb")
    except FileNotFoundError as error:
        raise SourceError(f"{path} does not exist: check the name and the working directory") from error
    except PermissionError as error:
        raise SourceError(f"{path} may not be read by this user: change its permissions") from error
    except (OSError, ValueError) as error:  # a name with a null byte is a ValueError
        raise SourceError(f"{path} cannot be opened ({one_line(error)}): check the name and the disk") from error


def open_text(path: Path) -> IO[bytes]:
    """Return the bytes of a text file, decompressed as they are read. Reading raises `BROKEN` for a damaged one."""
    raw = open_raw(path)
    found = format_of(path.name)
    if found is None or found[1] is None:
        return raw
    raw.close()
    match found[1]:
        case "gzip":
            return cast("IO[bytes]", gzip.open(path))
        case "bzip2":
            return bz2.open(path)
        case "xz":
            return lzma.open(path)
    import pyarrow as pa

    return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))


BROKEN = (OSError, EOFError, lzma.LZMAError)  # what reading a damaged or unreadable file raises


def digest_of(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of a file's bytes, of several files that of their digests in order (64 hex digits)."""
    digests = []
    for path in paths:
        with open_raw(path) as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
