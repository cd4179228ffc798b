"""Sources elsewhere: https://, s3://, gs://, hf://, what fsspec knows, and data sets of the Hugging Face hub by name.

Files are fetched into `sources/` in the cache (`NORMLOOM_CACHE`), each under the digest of its content, and fetched
again only if the server says that they changed (ETag or time of change). The key of a table holds the content's digest.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from normloom.core.errors import SourceError
from normloom.readers.opening import format_of
from normloom.readers.options import ReadOptions
from normloom.readers.records import one_line
from normloom.readers.remote.cache import Download, keep
from normloom.readers.remote.http import fetch_http

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_CONVERTED = "refs%2Fconvert%2Fparquet"  # the branch on which the hub keeps each data set as Parquet


def is_remote(name: str) -> bool:
    """Return whether a name is a URL, or has the form of a data set on the hub and no folder here to be in."""
    if "://" in name:
        return True
    path = Path(name)
    return bool(_HUB_ID.fullmatch(name)) and not path.suffix and name[0] not in ".~" and not path.parent.exists()


def shown(name: str) -> str:
    """Return a name without what may be a secret: user, password and query of a URL."""
    if "://" not in name:
        return name
    protocol, rest = name.split("://", 1)
    if protocol in {"http", "https"}:
        rest = rest.partition("?")[0]
    address, slash, path = rest.partition("/")
    return f"{protocol}://{address.rpartition('@')[2]}{slash}{path}"


def fetched(name: str, reading: ReadOptions) -> tuple[Path, ...]:
    """Return the local copies of a source's files, in name order. Raises SourceError."""
    if name.startswith("file://"):
        raise SourceError(f"{name}: give the path alone, without file://")
    try:
        if name.startswith(("http://", "https://")):
            return (fetch_http(name, shown(name)),)
        if "://" in name:
            system, path = _file_system(name)
            return _fetch_all(system, path, name)
        return _of_hub(name, reading)
    except SourceError:
        raise
    except Exception as error:  # each file system raises its own
        what = shown(name) if "://" in name else f"{name} does not exist here, and as a data set of the hub it"
        said = one_line(error) or type(error).__name__
        raise SourceError(f"{what} cannot be fetched ({said}): check name, network and access") from error


def _file_system(name: str) -> tuple[Any, str]:
    """Return an fsspec file system and the path in it; for S3 and Google Cloud it is pyarrow's, which is there."""
    protocol = urlsplit(name).scheme
    if protocol in {"s3", "gs", "gcs"}:
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow.fs import FileSystem

        system, path = FileSystem.from_uri(name)
        return ArrowFSWrapper(system), path
    import fsspec

    try:
        return fsspec.core.url_to_fs(name)  # type: ignore[no-any-return]
    except ImportError as error:
        raise SourceError(f"{shown(name)}: {one_line(error)}") from error
    except ValueError as error:
        raise SourceError(f"{shown(name)}: unknown protocol; use https, s3, gs, hf or another of fsspec's") from error


def _fetch_all(system: Any, path: str, name: str) -> tuple[Path, ...]:
    paths = [path]
    if system.isdir(path):
        paths = sorted(one for one in system.ls(path, detail=False) if format_of(one))
    elif not system.exists(path):
        paths = sorted(one for one in system.glob(path) if format_of(one)) if re.search(r"[*?\[]", path) else []
    if not paths:
        raise SourceError(f"{shown(name)} does not exist or has no file that can be read")
    return tuple(_fetch(system, one, name) for one in paths)


def _fetch(system: Any, path: str, name: str) -> Path:
    address = f"{urlsplit(name).scheme or 'hf'}://{path}"
    system.invalidate_cache()

    def fetch(target: Path, known: str | None) -> str | None:
        state = str(system.ukey(path))
        if state != known:
            system.get_file(path, str(target))
        return state

    return keep(Download(address=f"{address}\0{urlsplit(name).query}", filename=path.rsplit("/", 1)[-1], fetch=fetch))


def _of_hub(name: str, reading: ReadOptions) -> tuple[Path, ...]:
    """Return the files of one subset and split of a data set on the Hugging Face hub."""
    from huggingface_hub import HfFileSystem
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    system: Any = HfFileSystem()
    root = f"datasets/{name}@{_CONVERTED}"
    try:
        subset = _one_of(system, root, reading.subset, "subset", name, default="default")
        split = _one_of(system, f"{root}/{subset}", reading.split, "split", name)
    except (RepositoryNotFoundError, RevisionNotFoundError, FileNotFoundError) as error:
        raise SourceError(
            f"{name} does not exist here, and the Hugging Face hub has no data set of that name in Parquet: "
            "check the name and the working directory"
        ) from error
    return _fetch_all(system, f"{root}/{subset}/{split}", f"hf://{name}")


def _one_of(system: Any, path: str, given: str | None, what: str, name: str, default: str | None = None) -> str:
    there = sorted(one.rsplit("/", 1)[-1] for one in system.ls(path, detail=False))
    chosen = given or (there[0] if len(there) == 1 else default if default in there else None)
    if chosen is None or chosen not in there:
        missing = f"has no {what} {given!r}" if given else f"has several {what}s"
        raise SourceError(f"{name} {missing}: set source.{what} to one of {', '.join(there)}")
    return chosen
