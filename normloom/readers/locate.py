"""From what a user names to the files of a source, in order.

A name is a file, a folder of shards, or a pattern of them; it is taken as a pattern only if nothing of that very name
exists. Names with a protocol are fetched first (`normloom.readers.remote.fetch`).
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from normloom.core.errors import SourceError
from normloom.readers.formats.saved import saved_files
from normloom.readers.opening import COMPRESSIBLE, COMPRESSIONS, FORMATS, digest_of, format_of, open_raw
from normloom.readers.options import ReadOptions
from normloom.readers.remote.fetch import fetched, is_remote, shown

_ASIDE = frozenset({"dataset_info.json", "dataset_infos.json"})  # what data sets say about themselves
_SPLIT = re.compile(r"(train|test|validation|valid|val|dev|eval)(?![a-z])", re.IGNORECASE)
_SHOWN = 5
_MEANT_FOR = {"delimiter": {"csv", "tsv"}, "encoding": COMPRESSIBLE, "field": {"json"}}


class Located(BaseModel):
    """The files of a source, all of one format, and the digest of their content in order.

    Names and places are no part of a key; format, digest and the way of reading are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(exclude=True)
    files: tuple[Path, ...] = Field(exclude=True, min_length=1)
    format: str
    digest: str
    reading: ReadOptions = ReadOptions()


def locate(name: str | Path, reading: ReadOptions | None = None) -> Located:
    """Return the files of a source and their digest. Raises SourceError."""
    reading = reading or ReadOptions()
    given = str(name)
    if reading.subset and not is_remote(given):
        raise SourceError(f"{given} is not a data set on a hub: source.subset={reading.subset!r} does not apply to it")
    files = fetched(given, reading) if is_remote(given) else _files(given, reading)
    name = shown(given)
    forms = {file: format_of(file.name) for file in files}
    kinds = Counter(form[0] for form in forms.values() if form)
    if len(kinds) > 1:
        listed = ", ".join(f"{count} {form}" for form, count in kinds.most_common())
        raise SourceError(f"{name} holds files of several formats ({listed}): name one, such as {name}/*.csv")
    form = next(iter(kinds))
    for setting, formats in _MEANT_FOR.items():
        if getattr(reading, setting) is not None and form not in formats:
            raise SourceError(f"{name} is {form}: source.{setting} does not apply to it, leave it out")
    return Located(name=name, files=files, format=form, digest=digest_of(files), reading=reading)


def absolute(name: str) -> str:
    """Return a name that means the same in another working directory."""
    local = "://" not in name and (os.path.lexists(name) or glob.has_magic(name) or Path(name).suffix)
    return str(Path(name).absolute()) if local else name


def _files(name: str, reading: ReadOptions) -> tuple[Path, ...]:
    if name in {"-", "/dev/stdin"}:
        raise SourceError(f"{name} is standard input: write it to a file and name that")
    path = Path(name)
    if path.is_dir():
        return _shards(path, reading)
    if os.path.lexists(path) or not glob.has_magic(name):
        return _of_split(name, (_readable(path),), reading)
    if matched := sorted(glob.glob(name, recursive=True)):  # noqa: PTH207  # a name as the user wrote it
        files = tuple(Path(one) for one in matched if not Path(one).is_dir())
        if not files:
            raise SourceError(f"{name} matches folders only ({_some(matched)}): name the files in them")
        return _of_split(name, tuple(map(_readable, files)), reading)
    raise SourceError(f"{name} does not exist, and as a pattern it matches no file")


def _readable(path: Path) -> Path:
    open_raw(path).close()
    if not format_of(path.name):
        expected = f"{', '.join(FORMATS)}, text formats also with {', '.join(COMPRESSIONS)}"
        suffix = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise SourceError(f"{path} has {suffix}: expected one of {expected}")
    return path


def _shards(folder: Path, reading: ReadOptions) -> tuple[Path, ...]:
    """Return the files of a folder that can be read, by name; those of one split if they are of several."""
    try:
        if saved := saved_files(folder, reading):
            return saved
        inside = sorted(one for one in folder.iterdir() if not one.name.startswith((".", "_")))
    except PermissionError as error:
        raise SourceError(f"{folder} may not be read by this user: change its permissions") from error
    files = [one for one in inside if one.is_file() and format_of(one.name) and one.name not in _ASIDE]
    if not files:
        there = f"it holds {_some([one.name for one in inside])}" if inside else "it is empty"
        raise SourceError(f"the folder {folder} has no file that can be read: {there}")
    return _of_split(str(folder), tuple(files), reading)


def _of_split(name: str, files: tuple[Path, ...], reading: ReadOptions) -> tuple[Path, ...]:
    """Return the files of a split, recognised by their names: test rows must not slip in among those for training."""
    splits = {file: found.group(1).lower() for file in files if (found := _SPLIT.match(file.name))}
    listed = ", ".join(sorted(set(splits.values()))) or "none"
    if reading.split is None:
        if len(set(splits.values())) > 1:
            raise SourceError(f"{name} has files of several splits ({listed}): set source.split to one of them")
        return files
    if taken := tuple(file for file in files if splits.get(file) == reading.split):
        return taken
    if reading.splits_by_column and (len(files) == 1 or not splits):
        return files
    raise SourceError(f"{name} has no file of source.split={reading.split!r}; its splits are {listed}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
