"""`labels`: people's answers, recorded outside of builds, as a source of a flow."""

from __future__ import annotations

import json

import polars as pl

from normloom.core.errors import UsageError
from normloom.core.stage import Output, Stage, dropped_frame, quarantined_frame
from normloom.labelling.answers import Answer, Origin, described, standing
from normloom.labelling.questions import Given, LabelSchema, require_name
from normloom.labelling.seen import Labels
from normloom.schemas.people import label_tables
from normloom.schemas.tables import named_by_content
from normloom.steps.step import step


def labels(name: str, schema: Given | LabelSchema, *, guidelines: str = "", origin: Origin = "person") -> Stage:
    """Return the answers recorded under a name as a source: one row for each answer that counts.

    `schema` has the questions by name: a `Question`, or a list of options. `origin` says whose answers these are:
    people's and models' answers never mix. A build sees the answers present when the stage begins, and their digest
    is in its key: when new answers arrive, stages that read them are rebuilt. Corrected and undone answers are in the
    ledger of dropped rows, invalid ones in quarantine. Raises ConfigError for a wrong name or question.
    """
    asks = schema if isinstance(schema, LabelSchema) else LabelSchema.of(schema, guidelines)
    return recorded(labels=Labels(name=require_name(name), asks=asks, origin=origin))


@step(makes=label_tables.ANSWERS, name="labels_{labels.name}")
def recorded(*, labels: Labels) -> Output:
    """Return the answers that count, each with the row it is about as its parent."""
    found = standing(labels.answers)
    rows, aside = [], []
    for answer in found.current:
        if (why := _misfit(answer, labels.asks)) is None:
            rows.append(_row(answer))
        else:
            aside.append({**_entry(answer), "rule": "schema", "reason": why})
    known = {answer.id: answer for answer in labels.answers}
    gone = [(one, "corrected") for one in found.corrected] + [(one, "undone") for one in found.undone if one in known]
    gone += [(answer.id, "undoes another") for answer in known.values() if answer.undoes]
    dropped = [
        {**_entry(known[one]), "reason": reason, "winner": None}
        for one, reason in dict(reversed(gone)).items()  # an answer that was corrected and undone counts once
    ]
    return Output(
        rows=pl.DataFrame(rows, schema=named_by_content(label_tables.ANSWERS)),
        dropped=dropped_frame(dropped),
        quarantined=quarantined_frame(aside),
        attempts=len(known),
    )


def _row(answer: Answer) -> dict[str, object]:
    return {
        "parents": [answer.row],
        "content": answer.id,
        "asked": answer.row,
        "question": answer.question,
        "value": answer.text,
        **{name: getattr(answer, name) for name in ("who", "when", "origin", "tool", "shown")},
        "answer": answer.id,
    }


def _misfit(answer: Answer, asks: LabelSchema) -> str | None:
    try:
        asks.question(answer.question).fitting(answer.value, name=answer.question)
    except UsageError as error:
        return str(error)
    return None


def _entry(answer: Answer) -> dict[str, str | None]:
    return {"row_id": answer.row, "payload": json.dumps(described(answer), ensure_ascii=False)}
