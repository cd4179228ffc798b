"""Deleting what was said or is known, with everything derived from it in the chat, the tables and trained models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from normloom.core.errors import UsageError
from normloom.history.removal.forget import Asked, ask, beyond, forget
from normloom.lineage.reach import reach
from normloom.store.forgotten import SourceRow
from normloom.tasks.personas.chat.record import TURNS, ChatRecord, Turn, learned_of, replies_of, turns_of

REASON = "deleted by {who} in the chat"


@dataclass(frozen=True, kw_only=True)
class TakenBack:
    """What a deletion reaches: messages, facts learned from them and replies of the chat, and rows of tables."""

    turns: Sequence[Turn]
    facts: Sequence[str]
    replies: Sequence[str]
    asked: Asked

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            "messages": [{"turn": turn.id, "text": turn.text} for turn in self.turns],
            "facts": list(self.facts),
            "replies": len(self.replies),
            "tables": [
                {
                    "table": f"{held.table.system}/{held.table.stage}",
                    "rows": held.rows,
                    "learned": held.learned,
                    "newest": held.newest,
                }
                for held in self.asked.reach.held
            ],
            "beyond": list(self.asked.beyond),
        }


def would_take_back(record: ChatRecord, row: str) -> TakenBack:
    """Return what is deleted with a message, or with a fact: one of a source, or one that was learned from a message.

    A fact that was learned goes with its message, which states it. Nothing is deleted. Raises UsageError for an unknown
    row.
    """
    people, models = record.people.answers(), record.models.answers()
    turns, learned = turns_of(people), learned_of(models)
    turn = next((fact.turn for fact in learned if fact.id == row), row)
    said = [one for one in turns if one.id == turn]
    if said:
        found = reach(record.store, [SourceRow(system=record.system, stage=TURNS, row_id=turn)])
        asked = Asked(texts=[], reach=found, beyond=beyond(record.store, found))
    else:
        asked = _of_a_source(record, row)
    ids = {turn, *asked.reach.ids}
    facts = [fact.id for fact in learned if fact.turn == turn]
    ids.update(facts)
    replies = replies_of(models)
    gone: list[str] = []
    for reply in replies:  # oldest first: a reply draws on earlier ones only
        if reply.turn in ids or not ids.isdisjoint(reply.drew_on):
            ids.add(reply.id)
            gone.append(reply.id)
    asked = replace(asked, reach=replace(asked.reach, ids=frozenset(ids)))
    return TakenBack(turns=said, facts=facts if said else [row], replies=gone, asked=asked)


def take_back(record: ChatRecord, row: str, who: str) -> TakenBack:
    """Delete it: nothing of it counts from now on, and the next build makes tables without it."""
    found = would_take_back(record, row)
    forget(record.store, found.asked, reason=REASON.format(who=who))
    return found


def _of_a_source(record: ChatRecord, row: str) -> Asked:
    try:
        return ask(record.store, [row])
    except UsageError as error:
        raise UsageError(f"{row!r} is not a known message or fact, or was deleted already") from error
