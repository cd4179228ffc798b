"""Paths of objects in S3-compatible storage, `s3://bucket/prefix`, with what a store uses of pathlib.

Each operation is a request; a directory is the common beginning of names. What a directory can do and objects cannot
(rename, append, lock) is not here: `normloom.store.files` and `normloom.store.locks.lease` have the store's own ways.
Endpoint, region and credentials come from the environment (AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN) of each process, and are sent to no other.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PosixPath
from typing import IO, TYPE_CHECKING, Any, Self, TypeVar

from normloom.core.errors import StoreError

if TYPE_CHECKING:
    from obstore.store import S3Store

    from normloom.core.errors import NormloomError

SCHEME = "s3:"
Answer = TypeVar("Answer")


def place_of(given: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a directory, or the path of objects for `s3://bucket/prefix`.

    Raises StoreError for another scheme or a missing bucket.
    """
    path = Path(given)  # which makes one slash of two
    scheme = path.parts[0] if path.parts else ""
    if scheme == SCHEME:
        if len(path.parts) == 1:
            raise StoreError(f"{os.fspath(given)!r} names no bucket: expected s3://bucket/prefix")
        return ObjectPath(*path.parts)
    if re.fullmatch(r"[a-z][a-z0-9+]+:", scheme):
        raise StoreError(f"{os.fspath(given)!r} cannot hold a store: expected a directory or s3://bucket/prefix")
    return path.absolute()


class ObjectPath(PosixPath):
    """An object, or all objects below a name.

    Raises FileNotFoundError for a missing object, and StoreError if the storage refuses or cannot be reached.
    """

    listed: os.stat_result | None = None  # as its directory had it
    seconds = 60.0  # that a request may take

    def __str__(self) -> str:
        return f"s3://{'/'.join(self.parts[1:])}"

    def __fspath__(self) -> str:
        return str(self)

    @property
    def key(self) -> str:
        """The name in the bucket."""
        return "/".join(self.parts[2:])

    @property
    def bucket(self) -> S3Store:
        """The client of the bucket."""
        return _bucket(self.parts[1], os.environ.get("AWS_ENDPOINT_URL", ""), self.seconds)

    def within(self, seconds: float) -> Self:
        """Return the path with requests that may take less time, for objects of a few bytes."""
        path = type(self)(*self.parts)
        path.seconds = seconds
        return path

    def absolute(self) -> Self:
        """Return the path itself."""
        return self

    def as_uri(self) -> str:
        """Return the path as it is written."""
        return str(self)

    def asked(self, request: Callable[[], Answer]) -> Answer:
        """Return the answer to a request for this object, its refusals as errors of the operating system or a sentence.

        A condition that does not hold (`AlreadyExistsError`, `PreconditionError`) is raised as it is.
        """
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            return request()
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "no such object", str(self)) from error
        except (AlreadyExistsError, PreconditionError):
            raise
        except (BaseError, OSError, ValueError) as error:
            raise _told(self, error) from error

    def put(self, content: bytes, *, mode: Any = "overwrite") -> str:
        """Write the object, whole or not at all, and return its entity tag; `mode` is that of obstore."""
        answer = self.asked(lambda: self.bucket.put(self.key, content, mode=mode, use_multipart=False))
        return str(answer["e_tag"])

    def create(self, content: bytes) -> bool:
        """Write the object if there is none; return whether it was written."""
        from obstore.exceptions import AlreadyExistsError

        try:
            self.put(content, mode="create")
        except AlreadyExistsError:
            return False
        return True

    def replace_if(self, content: bytes, tag: str | None) -> str | None:
        """Write the object if it still has this entity tag, or, for None, if there is none.

        Return its new tag, or None if another has written it. A client that got no answer asks again and then meets its
        own object: the same content counts as written.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        # Some storage (Ceph) compares a tag in quotes, as HTTP has it, with its own without any.
        modes: list[Any] = ["create"] if tag is None else [{"e_tag": tag}, {"e_tag": tag.strip('"')}]
        for mode in modes:
            try:
                return self.put(content, mode=mode)
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                found = self.tag_of()
            if found is None or found[1] != tag:
                break
        return found[1] if found and found[0] == content else None

    def tag_of(self) -> tuple[bytes, str] | None:
        """Return content and entity tag, None if the object does not exist."""
        try:
            return self.tagged()[:2]
        except FileNotFoundError:
            return None

    def tagged(self) -> tuple[bytes, str, datetime]:
        """Return content, entity tag and time of change."""
        answer = self.asked(lambda: self.bucket.get(self.key))
        return bytes(answer.bytes()), str(answer.meta["e_tag"]), answer.meta["last_modified"]

    def read_bytes(self) -> bytes:
        """Return the content."""
        return self.tagged()[0]

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """Return the content as text."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def open(self, mode: str = "r", *_: Any, **__: Any) -> IO[Any]:  # type: ignore[override]  # no overloads
        """Refuse to open the object, which is read and written whole."""
        raise io.UnsupportedOperation(f"{self} cannot be opened as {mode!r}")

    def write_bytes(self, data: Any) -> int:
        """Write the object."""
        self.put(bytes(data))
        return len(data)

    def write_text(self, data: str, *_: Any, **__: Any) -> int:
        """Write text as UTF-8."""
        return self.write_bytes(data.encode())

    def touch(self, *_: Any, **__: Any) -> None:
        """Make the object younger; its content stays."""
        self.put(self.read_bytes() if self.is_file() else b"")

    def mkdir(self, *_: Any, **__: Any) -> None:
        """Do nothing: names need no directory."""

    def rmdir(self) -> None:
        """Do nothing, as `mkdir`."""

    def unlink(self, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002  # as pathlib has it
        """Remove the object; a missing one is no error to the storage."""
        if not missing_ok and not self.is_file():
            raise FileNotFoundError(errno.ENOENT, "no such object", str(self))
        self.asked(lambda: self.bucket.delete(self.key))

    def hardlink_to(self, target: Any) -> None:
        """Copy another object of the bucket here, in the storage."""
        self.asked(lambda: self.bucket.copy(ObjectPath(target).key, self.key))

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return size and time of change; of a directory neither."""
        del follow_symlinks
        if self.listed:
            return self.listed
        try:
            return _stat(self.asked(lambda: self.bucket.head(self.key)))
        except FileNotFoundError:
            if self.is_dir():
                return _stat(None)
            raise

    def lstat(self) -> os.stat_result:
        """Return what `stat` does."""
        return self.stat()

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Return whether there is an object of this name or below it."""
        del follow_symlinks
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Return whether there is an object of this name."""
        if self.listed:
            return stat.S_ISREG(self.listed.st_mode)
        try:
            self.asked(lambda: self.bucket.head(self.key))
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Return whether there are objects below this name."""
        if self.listed:
            return stat.S_ISDIR(self.listed.st_mode)
        return next(self._below(), None) is not None

    def is_symlink(self) -> bool:
        """Return False: there are no links."""
        return False

    def iterdir(self) -> Iterator[Self]:  # type: ignore[override]  # typeshed promises a generator
        """Yield objects and directories right below this name."""
        prefix = f"{self.key}/" if self.key else ""
        found = self.asked(lambda: self.bucket.list_with_delimiter(prefix))
        for name in found["common_prefixes"]:
            yield self._listed(name.rstrip("/"), None)
        for one in found["objects"]:
            yield self._listed(one["path"], one)

    def rglob(self, pattern: str, **_: Any) -> Iterator[Self]:  # type: ignore[override]  # typeshed promises a generator
        """Yield the objects below this name, at any depth, whose last name matches."""
        for one in self._below():
            path = self._listed(one["path"], one)
            if fnmatchcase(path.name, pattern):
                yield path

    def glob(self, pattern: str, **_: Any) -> Iterator[Self]:  # type: ignore[override]  # typeshed promises a generator
        """Yield what matches a pattern of one name, `name/`, or of several joined by `/`; `**` is unknown."""
        first, _slash, rest = pattern.partition("/")
        for path in sorted(self.iterdir()) if re.search(r"[*?\[]", first) else [self / first]:
            if not fnmatchcase(path.name, first) or (_slash and path.listed and not path.is_dir()):
                continue
            if rest:
                yield from path.glob(rest)
            elif path.listed or path.exists():
                yield path

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all objects below this name, by their names from here on."""
        start = len(self.key) + bool(self.key)
        return {one["path"][start:]: one["size"] for one in self._below()}

    def _below(self) -> Iterator[Any]:
        def listed() -> Iterator[Any]:
            for some in self.bucket.list(f"{self.key}/" if self.key else None):
                yield from some

        found = listed()
        missing = object()
        while (one := self.asked(lambda: next(found, missing))) is not missing:
            yield one

    def _listed(self, key: str, meta: Any) -> Self:
        path = type(self)(*self.parts[:2], key)
        path.listed = _stat(meta)
        return path


def fetched(folder: str | os.PathLike[str]) -> Path:
    """Return a folder on this machine with the files of a folder of objects; a local folder is returned as it is.

    Fetched files stay in the cache: a product's folder never changes once it is published.
    """
    from normloom.core.machine.once import made_once

    root = place_of(folder) if str(folder).startswith(SCHEME) else Path(folder)
    if not isinstance(root, ObjectPath):
        return root

    def fetch(draft: Path) -> None:
        for path in root.rglob("*"):
            target = draft / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())

    return made_once(fetched_to(root), fetch)


def fetched_to(folder: ObjectPath) -> Path:
    """Return where on this machine the files of a folder of objects are, or would be, once they are fetched."""
    from normloom.core.machine.cache import cache_dir

    return cache_dir().joinpath("objects", *folder.parts[1:])


@cache
def _bucket(name: str, endpoint: str, seconds: float) -> S3Store:
    from obstore.store import S3Store

    plain = endpoint.startswith("http:")
    if plain:
        os.environ.setdefault("AWS_ALLOW_HTTP", "true")  # Polars and DuckDB's file system read it too
    os.environ.setdefault("AWS_REGION", os.environ.get("AWS_DEFAULT_REGION", "us-east-1"))
    return S3Store(name, client_options={"timeout": f"{seconds:g}s", "allow_http": plain})


def _stat(meta: Any) -> os.stat_result:
    moment = meta["last_modified"].astimezone(UTC) if meta else datetime.fromtimestamp(0, UTC)
    seconds, kind = int(moment.timestamp()), stat.S_IFREG if meta else stat.S_IFDIR
    inode = hash(meta["path"]) if meta else 0
    exact = {"st_mtime": moment.timestamp(), "st_mtime_ns": int(moment.timestamp() * 1e6) * 1000}
    return os.stat_result((kind, inode, 0, 1, 0, 0, meta["size"] if meta else 0, seconds, seconds, seconds), exact)


def _told(path: ObjectPath, error: Exception) -> NormloomError:
    """Return one sentence about a refusal; the storage's own words may hold a key id, which is left out."""
    first = re.sub(r"<AWSAccessKeyId>.*?</AWSAccessKeyId>", "", str(error).partition("\n")[0])
    said = first[:300]
    return StoreError(
        f"{path}: the object storage at {os.environ.get('AWS_ENDPOINT_URL', 'AWS')} refuses or does not "
        f"answer ({said}); check AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
        "then rerun the command"
    )
