"""The header of a table of text: names that differ, and those of all shards alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from normloom.readers.join_shards import Alike
from normloom.readers.wanted import Wanted


class Header(NamedTuple):
    """The columns of a file by place, and those of them that have no name in the file."""

    names: tuple[str, ...]
    unnamed: frozenset[str]

    def content(self, fields: Sequence[str]) -> dict[str, object]:
        """Return a record of as many fields, without the empty ones of unnamed columns (a spreadsheet's margin)."""
        named = zip(self.names, fields, strict=True)
        if not self.unnamed:
            return dict(named)
        return {name: value for name, value in named if value or name not in self.unnamed}


@dataclass
class Headers:
    """Takes the header of each file of a source; `found` is where it says which names it changed."""

    wanted: Wanted
    found: list[str]
    _alike: Alike = field(default_factory=Alike)

    def take(self, fields: Sequence[str], path: Path) -> Header:
        """Return the header of a file. Raises SourceError for a missing or repeated column, or shards that differ."""
        self.wanted.check(fields, where=str(path))
        names: list[str] = []
        unnamed: set[str] = set()
        for position, name in enumerate(fields, start=1):
            new = name or f"column_{position}"
            while new in names or (new != name and new in fields):
                new += "_"
            if not name:
                unnamed.add(new)
            elif new != name and self.wanted.keep == "all":
                self.found.append(f"column {position} is named {name!r} too: kept as {new!r}")
            names.append(new)
        if self.wanted.keep == "all":
            self._alike.check(names, path)
        return Header(tuple(names), frozenset(unnamed))
