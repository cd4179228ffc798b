"""Replay how labels come in, round by round, under several strategies: who is asked next, and what was predicted.

A label is seen only after the round in which it was asked for: predictions of a round rest on earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from pydantic import Field

from normloom.core.fan_out import free
from normloom.core.rows.ids import seed as seed_of
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.people import persona_tables
from normloom.schemas.people.persona_tables import DIVERSE, STRATEGIES, UNCERTAIN
from normloom.steps.step import step
from normloom.tasks.personas.classifier import MODEL, Acting, Predicted, predict


class Replaying(Acting):
    """How labels are asked for."""

    start: int = Field(2, ge=1, description="known labels of each side before the first round")
    batch: int = Field(2, ge=1, description="users asked in a round")
    seed: int = Field(42, description="seed of the first labels, the random order and ties")


@dataclass(frozen=True)
class _User:
    row_id: str
    username: str
    persona: str
    accepted: bool


@step(
    makes=persona_tables.ROUNDS,
    libraries=("scikit-learn", "numpy"),
    fan_out=free("one row for each strategy, round and user whose label is not known yet"),
)
def rounds(rows: pl.DataFrame, args: Replaying) -> Output:
    """Return, of each strategy and round, what is predicted of every user whose label is not known yet.

    `asked` marks those whose label is learned next: at random, those of least confidence (uncertain), or those least
    like any user who is known or asked already (diverse, farthest first). Tasks with fewer than `start` labels of a
    side have no rounds.
    """
    made: list[dict[str, Any]] = []
    for (task,), group in rows.group_by("classification_task", maintain_order=True):
        users = [
            _User(row["row_id"], row["username"], row["persona"], row["accepted"])
            for row in group.iter_rows(named=True)
        ]
        users.sort(key=lambda user: seed_of(user.row_id, args.seed))
        first = [
            user for side in (True, False) for user in [one for one in users if one.accepted == side][: args.start]
        ]
        if len(first) < 2 * args.start:
            continue
        for strategy in STRATEGIES:
            made += list(_replayed(str(task), strategy, users, first, args))
    schema = tables.named_by_content(persona_tables.ROUNDS)
    return Output(rows=pl.DataFrame(made, schema=schema), attempts=len(made))


def _replayed(
    task: str, strategy: str, users: Sequence[_User], first: Sequence[_User], args: Replaying
) -> Iterator[dict[str, Any]]:
    known = list(first)
    number = 0
    while open_ := [user for user in users if user not in known]:
        number += 1
        found = predict([one.persona for one in known], [one.accepted for one in known], [one.persona for one in open_])
        chosen = _chosen(strategy, open_, known, found, args.batch)
        for place, user in enumerate(open_):
            confidence = float(found.confidence[place])
            yield {
                "parents": [user.row_id, *(one.row_id for one in known)],
                "content": "\x1f".join((strategy, str(number), task, user.username)),
                "strategy": strategy,
                "round": number,
                "labelled": len(known),
                "asked": place in chosen,
                "classification_task": task,
                "username": user.username,
                "accepted": user.accepted,
                "predicted": bool(found.accepts[place]),
                "confidence": confidence,
                "covered": confidence >= args.act_at,
                "origin": MODEL,
            }
        known += [open_[place] for place in chosen]


def _chosen(strategy: str, open_: Sequence[_User], known: Sequence[_User], found: Predicted, batch: int) -> list[int]:
    """Return the places of the users to ask; `open_` is in random order, which settles ties."""
    if strategy == UNCERTAIN:
        return sorted(range(len(open_)), key=lambda place: (found.confidence[place], place))[:batch]
    if strategy != DIVERSE:
        return list(range(min(batch, len(open_))))
    return farthest([one.persona for one in open_], [one.persona for one in known], batch)


def farthest(open_: Sequence[str], known: Sequence[str], count: int) -> list[int]:
    """Return the places of the personas that are least like any that is known or chosen before, farthest first."""
    chosen: list[int] = []
    while len(chosen) < min(count, len(open_)):
        near = [*known, *(open_[place] for place in chosen)]
        likeness = predict(near, [True] * len(near), open_).likeness
        left = (place for place in range(len(open_)) if place not in chosen)
        chosen.append(min(left, key=lambda place: (likeness[place], place)))
    return chosen
