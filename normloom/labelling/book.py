"""The record of answers in a store: files that are added and never changed.

    <root>/.labels/NAME/person/20261127T181503123456-5f3a...json     one file for each time that answers were given
    <root>/.labels/NAME/model/...                                     those of models, which never mix with people's

The name of a file ends with the digest of its content, and each names the file before it: a file that was changed or
taken away is found (`damage`). Writers need no lock. A purge writes what is left of a file again and removes the file.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from normloom.core.errors import StoreError
from normloom.labelling.answers import Answer, Origin
from normloom.labelling.questions import require_name
from normloom.store.files import put_new
from normloom.store.forgotten import forgettings
from normloom.store.store import Store

FOLDER = ".labels"
ORIGINS: tuple[Origin, ...] = ("person", "model")
READERS = 16  # threads, for object storage
_DIGEST = 24  # hex digits of a file's name


class _Page(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    after: str | None  # the newest file when this was written
    answers: tuple[Answer, ...] = Field(min_length=1)
    instead: str | None = None  # the file of which a purge left this


class LabelBook:
    """The answers of one origin under one name."""

    def __init__(self, store: Store, name: str, origin: Origin = "person") -> None:
        self.store, self.name, self.origin = store, require_name(name), origin
        self.folder = store.root / FOLDER / name / origin
        self._read: dict[str, tuple[Answer, ...]] = {}

    def add(self, answers: Sequence[Answer], *, instead: str | None = None) -> Path:
        """Append answers and return their file. Raises ValueError for those of another origin."""
        if any(answer.origin != self.origin for answer in answers):
            raise ValueError(f"these are the answers of a {self.origin}: those of others have a record of their own")
        after = max(self._files(), default=None)
        page = _Page(after=after, answers=tuple(answers), instead=instead)
        content = page.model_dump_json().encode()
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        path = self.folder / f"{stamp}{secrets.token_hex(8)}-{_digest(content)}.json"
        put_new(path, content)
        self._read[path.name] = page.answers
        return path

    def answers(self, *, forgotten: bool = False) -> list[Answer]:
        """Return all answers in the order in which they were added.

        Those about rows that were taken back are left out unless `forgotten`. What was read before is not read again.
        Raises StoreError for a file that is not as it was written.
        """
        names = sorted(self._files())
        new = [name for name in names if name not in self._read]
        if new:
            with ThreadPoolExecutor(min(READERS, len(new))) as pool:
                self._read |= dict(zip(new, pool.map(self._answers_in, new), strict=True))
        found = [answer for name in names for answer in self._read[name]]
        if forgotten:
            return found
        gone = forgotten_rows(self.store)
        return [answer for answer in found if answer.row not in gone]

    def damage(self) -> Iterator[tuple[str, str]]:
        """Yield the files that are not as they were written or that are gone: names, and what is wrong."""
        names = sorted(self._files())
        pages: dict[str, _Page] = {}
        for name in names:
            try:
                pages[name] = self._page(name)
            except StoreError as error:
                yield name, str(error).partition(": ")[2]
        replaced = {page.instead for page in pages.values()} | _purged(self.store)
        for name, page in pages.items():
            if page.after and page.after not in names and page.after not in replaced:
                yield page.after, f"is missing, and {name} follows it"

    def take_out(self, hit: Callable[[Answer], bool]) -> list[Path]:
        """Remove answers for good, which only a purge does: files without them stand for those that had some.

        Returns the files that are gone.
        """
        gone = []
        for name in sorted(self._files()):
            answers = self._answers_in(name)
            left = [answer for answer in answers if not hit(answer)]
            if len(left) == len(answers):
                continue
            if left:
                self.add(left, instead=name)
            (self.folder / name).unlink()
            self._read.pop(name, None)
            gone.append(self.folder / name)
        return gone

    def _files(self) -> list[str]:
        try:
            return [path.name for path in self.folder.iterdir() if path.suffix == ".json" and path.name[0] != "."]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _answers_in(self, name: str) -> tuple[Answer, ...]:
        return self._page(name).answers

    def _page(self, name: str) -> _Page:
        path = self.folder / name
        try:
            content = path.read_bytes()
            page = _Page.model_validate_json(content)
        except (OSError, ValidationError) as error:
            first = str(error).partition("\n")[0]
            raise StoreError(f"{path}: cannot be read ({first}); restore it from a backup") from error
        if name.rpartition("-")[2] != f"{_digest(content)}.json":
            raise StoreError(f"{path}: was changed since it was written; restore it from a backup")
        return page


def label_names(store: Store) -> list[str]:
    """Return the names under which answers are recorded."""
    folder = store.root / FOLDER
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def books(store: Store) -> list[LabelBook]:
    """Return all records of answers of a store."""
    return [LabelBook(store, name, origin) for name in label_names(store) for origin in ORIGINS]


def forgotten_rows(store: Store) -> set[str]:
    """Return the ids of all rows that people took back, and of rows derived from them."""
    return {row for one in forgettings(store) for row in (*one.reached, *(source.row_id for source in one.rows))}


def _purged(store: Store) -> set[str | None]:
    """Return the names of files of answers that purges removed."""
    from normloom.store.forgotten import purgings

    return {Path(name).name for one in purgings(store) for name in one.removed if name.startswith(f"{FOLDER}/")}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGEST]
