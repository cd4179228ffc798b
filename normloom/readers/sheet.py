"""Excel workbooks: the first sheet, its first row as header, each further row that is not empty a record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from normloom.errors import SourceError
from normloom.readers.kind import EXACT
from normloom.readers.records import Record, one_line
from normloom.readers.wanted import Wanted


@dataclass(kw_only=True)
class Sheet:
    """The records of one workbook. Cells are read as text: a number as Excel shows it, a date in ISO form."""

    path: Path
    wanted: Wanted
    found: list[str] = field(default_factory=list)

    def records(self) -> Iterator[Record]:
        """Yield the records. Raises SourceError."""
        from python_calamine import CalamineError, CalamineWorkbook

        try:
            with CalamineWorkbook.from_path(self.path) as book:
                if len(book.sheet_names) > 1:
                    others = ", ".join(map(repr, book.sheet_names[1:]))
                    self.found.append(f"sheet {book.sheet_names[0]!r} of {len(book.sheet_names)}; not read: {others}")
                rows = book.get_sheet_by_index(0).to_python(skip_empty_area=True)
        except (CalamineError, OSError, IndexError) as error:
            raise SourceError(f"{self.path} is damaged or no Excel workbook: {one_line(error)}") from error
        if not rows:
            return
        header = [_text(cell) for cell in rows[0]]
        self.wanted.check(header, where=str(self.path))
        names = self._names(header)
        inexact: set[str] = set()
        for row in rows[1:]:
            cells = dict(zip(names, map(_text, row), strict=True))
            inexact.update(name for name, cell in zip(names, row, strict=True) if _inexact(cell))
            if any(cells.values()):
                yield Record({name: value for name, value in cells.items() if name}, cells)
        self.found.extend(
            f"column {name!r} holds numbers of more than 15 digits, which Excel rounds: store them as text"
            for name in sorted(inexact)
        )

    def _names(self, header: list[str]) -> list[str]:
        names: list[str] = []
        for place, name in enumerate(header, start=1):
            new = name or f"column_{place}"
            while new in names or (new != name and new in header):
                new += "_"
            if name and new != name and self.wanted.keep == "all":
                self.found.append(f"column {place} is named {name!r} too: kept as {new!r}")
            names.append(new)
        return names


def _text(cell: object) -> str:
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def _inexact(cell: object) -> bool:
    return isinstance(cell, float) and abs(cell) >= EXACT
