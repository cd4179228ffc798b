"""Excel workbooks: the first sheet, its first row as header, each further row that is not empty a record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from normloom.core.errors import SourceError
from normloom.readers.formats.header import Headers
from normloom.readers.kind import EXACT
from normloom.readers.records import Record, one_line


def sheet_records(path: Path, headers: Headers) -> Iterator[Record]:
    """Yield the records; cells are text: a number as Excel shows it, a date in ISO form. Raises SourceError."""
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        with CalamineWorkbook.from_path(path) as book:
            if len(book.sheet_names) > 1:
                others = ", ".join(map(repr, book.sheet_names[1:]))
                headers.found.append(f"sheet {book.sheet_names[0]!r} of {path.name} is read, not {others}")
            rows = book.get_sheet_by_index(0).to_python(skip_empty_area=True)
    except (CalamineError, OSError, IndexError) as error:
        raise SourceError(f"{path} is damaged or not an Excel workbook: {one_line(error)}") from error
    if not rows:
        return
    header = headers.take([_text(cell) for cell in rows[0]], path)
    inexact: set[str] = set()
    for row in rows[1:]:
        fields = [_text(cell) for cell in row]
        inexact.update(name for name, cell in zip(header.names, row, strict=True) if _inexact(cell))
        if any(fields):
            yield Record(header.content(fields), fields)
    headers.found.extend(
        f"column {name!r} holds numbers of more than 15 digits, which Excel rounds: store them as text"
        for name in sorted(inexact)
    )


def _text(cell: object) -> str:
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def _inexact(cell: object) -> bool:
    return isinstance(cell, int | float) and abs(cell) >= EXACT
