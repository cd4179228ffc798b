"""Tasks of Label Studio, as its JSON export has them and its JSON import takes them.

https://labelstud.io/guide/export#Raw-JSON-format-of-completed-tasks: `annotations` are people's, `predictions` models'.
A control tag is named as its question is; `completed_by` is an id, or a person with an email.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from normloom.core.errors import UsageError
from normloom.labelling.answers import Answer
from normloom.labelling.exchange.found import ROW, SHOWN, Found, by_person, entry_of, moment, row_of
from normloom.labelling.questions import LabelSchema, Question

TOOL = "label-studio"
_VALUES = {"choices": "choices", "number": "number", "rating": "rating", "textarea": "text"}  # type -> field


class _Result(BaseModel):
    from_name: str | None = None
    type: str = ""
    value: dict[str, Any] | None = None


class _Annotation(BaseModel):
    """What is read of an annotation or a prediction."""

    completed_by: Any = None
    model_version: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    was_cancelled: bool | None = None
    result: list[_Result] | None = None


class _Task(BaseModel):
    """What is read of a task."""

    data: dict[str, Any]
    meta: dict[str, Any] | None = None
    annotations: list[_Annotation] | None = None
    predictions: list[_Annotation] | None = None


def read(content: Any, asks: LabelSchema) -> Iterator[Found]:
    """Yield the answers of exported tasks; annotations that were cancelled are left out. Raises UsageError."""
    if not isinstance(content, list):
        raise UsageError("expected a JSON list of Label Studio tasks")
    for place, one in enumerate(content, 1):
        where = f"task {place}"
        task = entry_of(_Task, one, where)
        row, shown = row_of([task.data.get(ROW), (task.meta or {}).get(ROW)], where), task.data.get(SHOWN)
        for made in task.annotations or ():
            if not made.was_cancelled:
                yield from _results(made, where, asks, row=row, shown=shown, who=_person(made), origin="person")
        for made in task.predictions or ():
            who = made.model_version or "model"
            yield from _results(made, where, asks, row=row, shown=shown, who=who, origin="model")


def write(
    rows: Sequence[Mapping[str, Any]], answers: Mapping[str, Sequence[Answer]], asks: LabelSchema
) -> list[dict[str, Any]]:
    """Return tasks: `rows` have id, digest and what is shown, `answers` are by the id of their row.

    Those of people become annotations, others predictions. Ids are 1, 2, ...: Label Studio gives its own on import.
    """
    return [_task(number, row, answers.get(row["row"], ()), asks) for number, row in enumerate(rows, 1)]


def _task(number: int, row: Mapping[str, Any], answers: Sequence[Answer], asks: LabelSchema) -> dict[str, Any]:
    target = next(iter(row["shown"]))
    annotations, predictions = [], []
    for (origin, who), some in by_person(answers).items():
        result = [_result(answer, asks.question(answer.question), target) for answer in some]
        when = max(answer.when for answer in some).isoformat()
        if origin == "person":
            annotations.append({"completed_by": {"email": who}, "created_at": when, "result": result})
        else:
            predictions.append({"model_version": who, "created_at": when, "result": result})
    return {
        "id": number,
        "data": {**row["shown"], ROW: row["row"], SHOWN: row["digest"]},
        "annotations": annotations,
        "predictions": predictions,
    }


def _results(made: _Annotation, where: str, asks: LabelSchema, **said: Any) -> Iterator[Found]:
    when = moment(made.updated_at or made.created_at, where)
    for result in made.result or ():
        name, field = str(result.from_name), _VALUES.get(result.type)
        if field is None:
            raise UsageError(f"{where}: a result of type {result.type!r}; known: {', '.join(_VALUES)}")
        question = asks.question(name)
        value = (result.value or {}).get(field)
        if isinstance(value, list) and question.kind != "choices":
            value = value[0] if len(value) == 1 else value
        yield Found(where=where, question=name, value=value, when=when, **said)


def _result(answer: Answer, question: Question, target: str) -> dict[str, Any]:
    kind = {"choice": "choices", "choices": "choices", "number": "number", "text": "textarea"}[question.kind]
    several = kind in {"choices", "textarea"} and not isinstance(answer.value, tuple)
    value = [answer.value] if several else list(answer.value) if isinstance(answer.value, tuple) else answer.value
    return {"from_name": answer.question, "to_name": target, "type": kind, "value": {_VALUES[kind]: value}}


def _person(annotation: _Annotation) -> str | None:
    by = annotation.completed_by
    if isinstance(by, Mapping):
        return by.get("email") or str(by.get("id"))
    return None if by is None else str(by)
