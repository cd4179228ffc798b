"""Records of Argilla (2.x), as `dataset.records.to_json` writes them and `from_json` reads them.

`responses` are people's, by question, each with a user id; `suggestions` are models', with the agent that made them.
Argilla does not say when an answer was given: the time of the import stands for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from normloom.core.errors import UsageError
from normloom.labelling.answers import Answer
from normloom.labelling.exchange.found import ROW, SHOWN, Found, entry_of, row_of
from normloom.labelling.questions import LabelSchema

TOOL = "argilla"


class _Response(BaseModel):
    value: Any = None
    status: str = "submitted"
    user_id: Any = None


class _Suggestion(BaseModel):
    value: Any = None
    agent: str | None = None


class _Record(BaseModel):
    """What is read of a record."""

    id: Any = None
    metadata: dict[str, Any] | None = None
    responses: dict[str, list[_Response]] | None = None
    suggestions: dict[str, _Suggestion] | None = None


def read(content: Any, asks: LabelSchema) -> Iterator[Found]:
    """Yield the answers of exported records; drafts and discarded responses are left out. Raises UsageError."""
    if not isinstance(content, list):
        raise UsageError("expected a JSON list of Argilla records")
    for place, one in enumerate(content, 1):
        where = f"record {place}"
        record = entry_of(_Record, one, where)
        metadata = record.metadata or {}
        row, shown = row_of([metadata.get(ROW), record.id], where), metadata.get(SHOWN)
        for name, responses in (record.responses or {}).items():
            asks.question(name)
            for response in responses:
                if response.status == "submitted":
                    who, value = response.user_id and str(response.user_id), _value(response.value)
                    yield Found(where=where, row=row, question=name, value=value, who=who, shown=shown)
        for name, suggestion in (record.suggestions or {}).items():
            who, value = suggestion.agent or "model", _value(suggestion.value)
            yield Found(where=where, row=row, question=name, value=value, who=who, origin="model", shown=shown)


def write(
    rows: Sequence[Mapping[str, Any]], answers: Mapping[str, Sequence[Answer]], asks: LabelSchema
) -> list[dict[str, Any]]:
    """Return records: `rows` have id, digest and what is shown, `answers` are by the id of their row."""
    return [_record(row, answers.get(row["row"], ()), asks) for row in rows]


def _record(row: Mapping[str, Any], answers: Sequence[Answer], asks: LabelSchema) -> dict[str, Any]:
    responses: dict[str, list[dict[str, Any]]] = {}
    suggestions: dict[str, dict[str, Any]] = {}
    for answer in answers:
        value = list(answer.value) if isinstance(answer.value, tuple) else answer.value
        if answer.question not in asks.questions:
            continue
        if answer.origin == "person":
            responses.setdefault(answer.question, []).append({"value": value, "user_id": answer.who})
        else:
            suggestions[answer.question] = {"value": value, "score": None, "agent": answer.who}
    fields = {name: value if isinstance(value, str) else str(value) for name, value in row["shown"].items()}
    return {
        "id": row["row"],
        "fields": fields,
        "metadata": {ROW: row["row"], SHOWN: row["digest"]},
        "suggestions": suggestions,
        "responses": responses,
        "vectors": {},
    }


def _value(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value
