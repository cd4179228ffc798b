"""What is known of users: the facts of a source as people corrected them, and those learned in the chat."""

from __future__ import annotations

from typing import Any

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output, dropped, dropped_frame
from normloom.labelling.seen import Labels
from normloom.schemas.people import persona_tables
from normloom.schemas.people.persona_tables import MODEL, PERSON, SOURCE
from normloom.schemas.tables import named_by_content
from normloom.steps.step import step
from normloom.tasks.personas.chat.record import FACT, corrections_of, keys_of, learned_of, turns_of

NO_FACT = "not a fact"


@step(makes=persona_tables.TURNS, name="turns")
def turns(*, people: Labels) -> Output:
    """Return what users said in the chat, one row for each message; what was taken back is not among them."""
    keys = keys_of(people.answers)
    rows = [
        {
            "parents": [],
            "content": keys[turn.id],
            "username": turn.username,
            "task": turn.task,
            "text": turn.text,
            "when": turn.when,
        }
        for turn in turns_of(people.answers)
        if turn.id in keys
    ]
    return Output(rows=pl.DataFrame(rows, schema=named_by_content(persona_tables.TURNS)), attempts=len(rows))


@step(makes=persona_tables.KNOWN, fan_out=free("one row for each fact, however often it is stated"))
def known(rows: pl.DataFrame, turns: pl.DataFrame, *, people: Labels, models: Labels) -> Output:
    """Return the facts of a source and of the chat, as people corrected them; a fact stated twice has both as parents.

    `origin` is `source`, `model` for what the extractor read in a turn, `person` for a correction, never a mixture: of
    a fact that is stated twice it is the first one's. What people say is no fact is dropped.
    """
    corrections = corrections_of(people.answers)
    users = dict(turns.select("row_id", "username").iter_rows())
    stated = [(row, SOURCE, row["row_id"]) for row in rows.iter_rows(named=True)]
    stated += [
        ({"row_id": one.id, "username": users[one.turn], **dict(zip(FACT, one.fact, strict=True))}, MODEL, one.turn)
        for one in learned_of(models.answers)
        if one.turn in users
    ]
    made: dict[tuple[str, ...], dict[str, Any]] = {}
    aside = []
    for row, origin, parent in stated:
        correction = corrections.get(row["row_id"])
        if correction and not correction.fact:
            aside.append(dropped({**row, "row_id": parent}, NO_FACT))
            continue
        fact = dict(zip(FACT, correction.fact, strict=True)) if correction else {name: row[name] for name in FACT}
        own = {"username": row["username"], **fact}
        one = made.setdefault(
            tuple(own.values()),
            {"parents": [], "content": row["row_id"], **own, "origin": PERSON if correction else origin},
        )
        if parent not in one["parents"]:
            one["parents"].append(parent)
    frame = pl.DataFrame(list(made.values()), schema=named_by_content(persona_tables.KNOWN))
    return Output(rows=frame, dropped=dropped_frame(aside), attempts=len(made) + len(aside))
