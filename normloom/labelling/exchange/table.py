"""A CSV file to fill in: a line for each row and person, with a column for each question.

Columns `row_id` and those of the questions are read, and `who`, `when`, `origin` and `shown` if they are there; an
empty cell is no answer. Several options are a JSON list. Others, such as what is shown, are for people.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from normloom.core.errors import UsageError
from normloom.labelling.answers import Answer, as_text
from normloom.labelling.exchange.found import Found, by_person, moment
from normloom.labelling.questions import LabelSchema

TOOL = "csv"
_DELIMITERS = ",;\t"
_OURS = ("row_id", "shown", "who", "when", "origin")


def read(text: str, asks: LabelSchema) -> Iterator[Found]:
    """Yield the answers of a CSV file. Raises UsageError, with the line."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # what is shown of a row may be long
    lines = csv.DictReader(io.StringIO(text), delimiter=_delimiter(text))
    header = lines.fieldnames or []
    asked = [name for name in asks.questions if name in header]
    if "row_id" not in header or not asked:
        raise UsageError(
            f"expected a header with row_id and a question ({', '.join(asks.questions)}), got {', '.join(header)}"
        )
    for line in lines:
        where = f"line {lines.line_num}"
        origin = line.get("origin") or "person"
        if origin not in {"person", "model"} or not line["row_id"]:
            raise UsageError(f"{where}: expected a row_id, and as origin person or model")
        for name in asked:
            if cell := (line[name] or "").strip():
                yield Found(
                    where=where,
                    row=line["row_id"],
                    question=name,
                    value=_value(cell) if asks.questions[name].kind == "choices" else cell,
                    who=line.get("who") or None,
                    when=moment(line.get("when"), where),
                    origin="model" if origin == "model" else "person",
                    shown=line.get("shown") or None,
                )


def _delimiter(text: str) -> str:
    """Return the delimiter under which the header has row_id: spreadsheets write what their country uses."""
    headers = {one: next(csv.reader(io.StringIO(text), delimiter=one), []) for one in _DELIMITERS}
    return next((one for one, header in headers.items() if "row_id" in header), _DELIMITERS[0])


def write(rows: Sequence[Mapping[str, Any]], answers: Mapping[str, Sequence[Answer]], asks: LabelSchema) -> str:
    """Return the text of a CSV file, `answers` by the id of their row; a row without any has a line to be filled in."""
    shown = [name for name in (rows[0]["shown"] if rows else ()) if name not in {*_OURS, *asks.questions}]
    out = io.StringIO()
    writer = csv.DictWriter(out, ["row_id", *shown, *asks.questions, "who", "when", "origin", "shown"])
    writer.writeheader()
    for row in rows:
        given = by_person(answers.get(row["row"], ()))
        line = {"row_id": row["row"], "shown": row["digest"], **{name: _cell(row["shown"][name]) for name in shown}}
        for (origin, who), some in given.items():
            cells = {answer.question: as_text(answer.value) for answer in some if answer.question in asks.questions}
            when = max(answer.when for answer in some).isoformat()
            writer.writerow({**line, **cells, "who": who, "when": when, "origin": origin})
        if not given:
            writer.writerow(line)
    return out.getvalue()


def _value(cell: str) -> Any:
    if cell.startswith("["):
        try:
            return json.loads(cell)
        except ValueError:
            return cell
    return cell


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
