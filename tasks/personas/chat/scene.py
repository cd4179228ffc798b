"""All that a user sees of a conversation, put together from the newest tables and the record of the chat."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import polars as pl

from normloom.core.errors import UsageError
from normloom.labelling.seen import Labels
from normloom.store.forgotten import FOLDER, deny_list
from normloom.tasks.personas.chat.known import known
from normloom.tasks.personas.chat.record import (
    FACT,
    ChatRecord,
    Correction,
    Learned,
    Reply,
    Turn,
    chat_labels,
    corrections_of,
    learned_of,
    replies_of,
    turns_of,
)
from normloom.tasks.personas.community import personas, recommendations

SOURCE = "facts"  # the stage
TOPICS = "topics"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A snapshot of the conversation. `source` holds the facts of the newest table that have not been deleted."""

    who: str
    version: str
    source: pl.DataFrame
    listed: pl.DataFrame
    all_turns: Sequence[Turn]
    learned: Sequence[Learned]
    replies: Sequence[Reply]
    lost: frozenset[str]  # turns of which a reply was deleted
    corrections: Mapping[str, Correction]
    people: Labels
    models: Labels

    @classmethod
    def of(cls, record: ChatRecord, who: str, *, version: str) -> Self:
        """Read the tables and the record. Raises UsageError if no facts are published."""
        store, system = record.store, record.system
        facts = store.current(system, SOURCE)
        if facts is None:
            raise UsageError(f"no facts of {system} in {store.root}: run normloom build {system} first")
        deny = deny_list(store)
        source = store.scan(facts.ref).collect()
        if deny.digest:
            source = source.filter([deny.why(row) is None for row in source.iter_rows(named=True)])
        topics = store.current(system, TOPICS)
        listed = store.scan(topics.ref).collect() if topics else source
        people, models = record.people.answers(), record.models.answers()
        replies = replies_of(models)
        every = replies_of(record.models.answers(forgotten=True))
        return cls(
            who=who,
            version=version,
            source=source,
            listed=listed.select("task", "topic").unique(maintain_order=True),
            all_turns=turns_of(people, models),
            learned=learned_of(models),
            replies=replies,
            lost=frozenset({one.turn for one in every} - {one.turn for one in replies}),
            corrections=corrections_of(people),
            people=Labels.of(chat_labels(system, "person"), people),
            models=Labels.of(chat_labels(system, "model"), models),
        )

    @staticmethod
    def version_of(record: ChatRecord) -> str:
        """Return what changes whenever a scene would, without reading it."""
        folders = [*(book.folder for book in (record.people, record.models)), record.store.root / FOLDER]
        names = [path.name for folder in folders if folder.is_dir() for path in folder.iterdir()]
        tables = [record.store.current(record.system, stage) for stage in (SOURCE, TOPICS)]
        seen = [*sorted(names), *(table.key for table in tables if table)]
        return hashlib.sha256("\n".join(seen).encode()).hexdigest()[:16]

    @cached_property
    def turns(self) -> list[Turn]:
        """What this user said."""
        return [turn for turn in self.all_turns if turn.username == self.who]

    @cached_property
    def tasks(self) -> dict[str, list[str]]:
        """The topics of each task."""
        found: dict[str, list[str]] = {}
        for task, topic in self.listed.iter_rows():
            found.setdefault(task, []).append(topic)
        return found

    @cached_property
    def relations(self) -> list[str]:
        """The relations of the facts of the source."""
        return list(self.source["relation"].unique())

    @cached_property
    def described(self) -> pl.DataFrame:
        """What is known of all users, as the next build will have it; `row_id` is that of the fact."""
        said = pl.DataFrame(
            [{"row_id": turn.id, "username": turn.username} for turn in self.all_turns],
            schema={"row_id": pl.String, "username": pl.String},
        )
        facts = known.function(self.source, said, people=self.people, models=self.models).rows
        rows = facts.rename({"content": "row_id"}).drop("parents")
        made = personas.function(rows, self.listed).rows
        return made.join(rows.select("row_id", "origin"), on="row_id", how="left", maintain_order="left")

    @cached_property
    def own_facts(self) -> list[dict[str, Any]]:
        """What is known of this user, in the order in which it was learned."""
        turns = {one.id: one.turn for one in self.learned}
        columns = ("relation", "object", "task", "topic", "origin", "contradicts")
        return [
            {"fact": row["row_id"], "turn": turns.get(row["row_id"]), **{name: row[name] for name in columns}}
            for row in self.described.filter(username=self.who).iter_rows(named=True)
        ]

    @cached_property
    def recommendations(self) -> list[dict[str, Any]]:
        """What others have and this user has not, each with the facts it rests on: those of others and their own."""
        made = recommendations.function(self.described).rows.filter(username=self.who)
        return [
            {
                **{name: row[name] for name in ("task", "topic", "rank", "relation", "object", "users")},
                "facts": row["parents"],
                "own": self._reasons(row["task"], row["topic"]),
            }
            for row in made.iter_rows(named=True)
        ]

    def told_turns(self) -> list[dict[str, Any]]:
        """Return the messages of this user with facts and replies, oldest first."""
        facts: dict[str, list[dict[str, Any]]] = {}
        for one in self.learned:
            facts.setdefault(one.turn, []).append(self._told(one))
        return [
            {
                "turn": turn.id,
                "when": turn.when.isoformat(timespec="seconds"),
                "task": turn.task,
                "text": turn.text,
                "facts": facts.get(turn.id, []),
                "reply": self._reply_told(turn.id),
                "reply_deleted": turn.id in self.lost,
            }
            for turn in self.turns
        ]

    def turn(self, turn: str) -> Turn | None:
        """Return a message of this user."""
        return next((one for one in self.turns if one.id == turn), None)

    def reply(self, turn: str) -> Reply | None:
        """Return the newest reply to a message."""
        return next((one for one in reversed(self.replies) if one.turn == turn), None)

    def tries(self, turn: str) -> int:
        """Return how many replies to a message were recorded."""
        return sum(one.turn == turn for one in self.replies)

    def earlier(self, turn: Turn) -> list[tuple[Turn, Reply]]:
        """Return the messages before one that have a reply, with it."""
        return list(self._answered(turn))

    def require_own(self, row: str) -> None:
        """Raise UsageError unless a row is a message or a fact of this user."""
        mine = {turn.id for turn in self.turns}
        facts = {one.id for one in self.learned if one.turn in mine}
        if row not in mine | facts | set(self.source.filter(username=self.who)["row_id"]):
            raise UsageError(f"{row!r} is not a message or fact of {self.who}: it may have been deleted already")

    def _answered(self, turn: Turn) -> Iterator[tuple[Turn, Reply]]:
        for one in self.turns:
            if one.when < turn.when and (reply := self.reply(one.id)) and reply.text is not None:
                yield one, reply

    def _told(self, one: Learned) -> dict[str, Any]:
        correction = self.corrections.get(one.id)
        fact = correction.fact if correction else one.fact
        return {
            "fact": one.id,
            "start": one.start,
            "stop": one.stop,
            "confidence": one.confidence,
            "read": dict(zip(FACT, one.fact, strict=True)),
            "now": dict(zip(FACT, fact, strict=True)) if fact else None,
            "origin": "person" if correction else "model",
        }

    def _reply_told(self, turn: str) -> dict[str, Any] | None:
        reply = self.reply(turn)
        if reply is None:
            return None
        shown = {one["fact"] for one in self.own_facts}
        return {
            "text": reply.text,
            "failure": reply.failure,
            "model": reply.model,
            "drew_on": [one for one in reply.drew_on if one in shown],
        }

    def _reasons(self, task: str, topic: str) -> list[str]:
        """Return the user's own facts for which a topic is looked at: those in it, else those of its task."""
        mine = [one for one in self.own_facts if one["task"] == task]
        return [one["fact"] for one in [fact for fact in mine if fact["topic"] == topic] or mine]
