"""Which columns of a source are wanted, and under which names they are found."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from normloom.core.errors import SourceError

Keep = Sequence[str] | Literal["all"]

RESERVED = ("source_row", "text")  # what the table of a source calls its own
MISSING: Any = object()
_MAX_LISTED = 20


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The column of texts if there is one, the columns to keep (all or those named), and those kept if there."""

    text_column: str | None
    keep: Keep = ()
    optional: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        named = self.optional if self.keep == "all" else (*self.keep, *self.optional)
        if taken := [name for name in self.reserved if name in named]:
            raise SourceError(f"a column named {taken[0]!r} cannot be kept next to the text: rename it in the file")

    @property
    def reserved(self) -> tuple[str, ...]:
        """What the table calls its own."""
        return RESERVED if self.text_column is not None else RESERVED[:1]

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that must be there, the text's first."""
        text = (self.text_column,) if self.text_column is not None else ()
        return tuple(dict.fromkeys((*text, *(() if self.keep == "all" else self.keep))))

    def outputs(self, existing: Iterable[str]) -> dict[str, str]:
        """Return which column of the file each kept column is read from, by the kept column's name.

        With all columns a name that the table has for itself gets a suffix.
        """
        if self.keep != "all":
            optional = [name for name in self.optional if name != self.text_column and name in existing]
            return {name: name for name in dict.fromkeys((*self.keep, *optional))}
        names = list(existing)
        kept: dict[str, str] = {}
        for name in names:
            if name != self.text_column:
                renamed = name
                while renamed in self.reserved or (renamed != name and renamed in names):
                    renamed += "_"
                kept[renamed] = name
        return kept

    def check(self, existing: Sequence[str], *, where: str, hint: str = "") -> None:
        """Raise SourceError if a needed column is missing or any that is read stands there twice."""
        if absent := [name for name in self.needed if name not in existing]:
            listed = " and no column ".join(map(repr, absent))
            raise SourceError(f"{where} has no column {listed}: {hint or columns_hint(absent[0], existing)}")
        for name in (*self.needed, *self.optional):
            if existing.count(name) > 1:
                raise SourceError(f"{where} has {existing.count(name)} columns named {name!r}: rename all but one")


def value_of(content: Mapping[str, Any], name: str) -> Any:
    """Return a record's value under a name, MISSING without one; a dotted name of no column leads into objects."""
    if name in content:
        return content[name]
    for column, value in content.items():
        if isinstance(value, Mapping) and name.startswith(f"{column}."):
            return value_of(value, name.removeprefix(f"{column}."))
    return MISSING


def columns_hint(wanted: str, existing: Sequence[str]) -> str:
    """Return a sentence on the columns there are, and the one that may be meant."""
    listed = ", ".join(map(repr, existing[:_MAX_LISTED])) or "none"
    more = f" and {len(existing) - _MAX_LISTED} more" if len(existing) > _MAX_LISTED else ""
    by_folded = {name.strip().casefold(): name for name in reversed(existing)}
    close = difflib.get_close_matches(wanted.strip().casefold(), by_folded, n=1)
    hint = f"did you mean {by_folded[close[0]]!r}?" if close else "name one of these"
    return f"its columns are {listed}{more}; {hint}"
