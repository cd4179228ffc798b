"""Tasks of Label Studio, as its JSON export has them and its JSON import takes them.

https://labelstud.io/guide/export#Raw-JSON-format-of-completed-tasks: `annotations` are people's, `predictions` models'.
A control tag is named as its question is; `completed_by` is an id, or a person with an email.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from normloom.core.errors import UsageError
from normloom.labelling.answers import Answer
from normloom.labelling.exchange.found import ROW, SHOWN, Found, moment, row_of
from normloom.labelling.questions import LabelSchema, Question

TOOL = "label-studio"
_VALUES = {"choices": "choices", "number": "number", "rating": "rating", "textarea": "text"}  # type -> field


def read(content: Any, asks: LabelSchema) -> Iterator[Found]:
    """Yield the answers of exported tasks; annotations that were cancelled are left out. Raises UsageError."""
    if not isinstance(content, list):
        raise UsageError("expected a JSON list of Label Studio tasks")
    for place, task in enumerate(content):
        where = f"task {place + 1}"
        data = task.get("data") if isinstance(task, Mapping) else None
        if not isinstance(data, Mapping):
            raise UsageError(f"{where}: expected an object with 'data'")
        row = row_of([data.get(ROW), (task.get("meta") or {}).get(ROW)], where)
        for one in task.get("annotations") or []:
            if not one.get("was_cancelled"):
                yield from _results(one, row, data, where, asks, who=_person(one), origin="person")
        for one in task.get("predictions") or []:
            yield from _results(one, row, data, where, asks, who=one.get("model_version") or "model", origin="model")


def write(rows: Sequence[Mapping[str, Any]], answers: Sequence[Answer], asks: LabelSchema) -> list[dict[str, Any]]:
    """Return tasks: `rows` have id, digest and what is shown; answers of people become annotations, others predictions.

    Ids are 1, 2, ...: Label Studio gives its own on import.
    """
    return [_task(number, row, answers, asks) for number, row in enumerate(rows, 1)]


def _task(number: int, row: Mapping[str, Any], answers: Sequence[Answer], asks: LabelSchema) -> dict[str, Any]:
    given: dict[tuple[str, str], list[Answer]] = {}
    for answer in answers:
        if answer.row == row["row"]:
            given.setdefault((answer.origin, answer.who), []).append(answer)
    target = next(iter(row["shown"]))
    annotations, predictions = [], []
    for (origin, who), some in given.items():
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


def _results(
    given: Mapping[str, Any], row: str, data: Mapping[str, Any], where: str, asks: LabelSchema, **said: Any
) -> Iterator[Found]:
    when = moment(given.get("updated_at") or given.get("created_at"), where)
    for result in given.get("result") or []:
        name, field = result.get("from_name"), _VALUES.get(result.get("type", ""))
        if field is None:
            raise UsageError(f"{where}: a result of type {result.get('type')!r}; known: {', '.join(_VALUES)}")
        question = asks.question(str(name))
        value = (result.get("value") or {}).get(field)
        if isinstance(value, list) and question.kind != "choices":
            value = value[0] if len(value) == 1 else value
        yield Found(where=where, row=row, question=str(name), value=value, when=when, shown=data.get(SHOWN), **said)


def _result(answer: Answer, question: Question, target: str) -> dict[str, Any]:
    kind = {"choice": "choices", "choices": "choices", "number": "number", "text": "textarea"}[question.kind]
    several = kind in {"choices", "textarea"} and not isinstance(answer.value, tuple)
    value = [answer.value] if several else list(answer.value) if isinstance(answer.value, tuple) else answer.value
    return {"from_name": answer.question, "to_name": target, "type": kind, "value": {_VALUES[kind]: value}}


def _person(annotation: Mapping[str, Any]) -> str | None:
    by = annotation.get("completed_by")
    if isinstance(by, Mapping):
        return by.get("email") or str(by.get("id"))
    return None if by is None else str(by)
