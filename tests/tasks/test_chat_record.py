"""What a chat records is used by the next build, and what is deleted in it is reached everywhere."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any

import polars as pl
import pytest

from normloom.core.errors import UsageError
from normloom.core.models.protocol import ModelSpec
from normloom.core.table import Manifest
from normloom.history.removal.purge import purge
from normloom.labelling.book import LabelBook
from normloom.settings.settings import stages_for
from normloom.store.store import Store
from normloom.tasks.personas.chat.record import (
    ChatRecord,
    Learned,
    corrections_of,
    learned_of,
    replies_of,
    turns_of,
)
from normloom.tasks.personas.chat.replier import Replier
from normloom.tasks.personas.chat.taking_back import take_back, would_take_back
from normloom.testing.inline import made

FACTS = """username,task,topic,relation,object
ada,Leisure,Outdoor,likes,maps
bob,Leisure,Outdoor,likes,a walk by the river
bob,Leisure,Outdoor,likes,bees
cyd,Leisure,Outdoor,likes,bees
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "facts.csv").write_text(FACTS)
    return Store(tmp_path / "store")


def built(store: Store) -> dict[str, Manifest]:
    path = f"source.path={store.root.parent / 'facts.csv'}"
    return made("persopilot", stages_for("persopilot", profile="local", assignments=[path], store=store).ends, store)


def table(store: Store, tables: dict[str, Manifest], stage: str) -> pl.DataFrame:
    return store.scan(tables[stage].ref).collect()


def learned(record: ChatRecord, turn: str, *facts: str) -> list[Learned]:
    return [
        Learned(
            id=record.fact_id(turn, number),
            turn=turn,
            fact=("likes", one, "Leisure", "Outdoor"),
            start=0,
            stop=len(one),
            confidence=0.9,
        )
        for number, one in enumerate(facts)
    ]


def said(record: ChatRecord, text: str, *facts: str, key: str = "k1", who: str = "ada") -> str:
    turn = record.say(who, text, "Leisure", key)
    record.learn(turn, learned(record, turn, *facts), "extractor 1")
    return turn


def test_facts_learned_in_the_chat_are_known_to_the_next_build_and_count_in_recommendations(store: Store) -> None:
    before = built(store)
    assert before["turns"].count("rows") == 0
    turn = said(ChatRecord(store, "persopilot"), "tea it is", "tea", "bees")
    after = built(store)
    assert table(store, after, "turns").select("row_id", "username", "text").rows() == [(turn, "ada", "tea it is")]
    own = table(store, after, "known").filter(username="ada")
    assert own.select("object", "origin").rows() == [("maps", "source"), ("tea", "model"), ("bees", "model")]
    assert own["parents"].to_list()[1:] == [[turn], [turn]]
    bob = table(store, after, "recommendations").filter(username="bob")
    assert set(bob["object"]) == {"maps", "tea"}
    cyd = table(store, after, "recommendations").filter(username="ada", rank=1)
    assert cyd["object"].to_list() == ["a walk by the river"]  # bees are known of ada now
    assert after["facts"].key == before["facts"].key


def test_answers_of_people_and_of_models_lie_apart_and_a_turn_is_stored_once(store: Store) -> None:
    record = ChatRecord(store, "persopilot")
    turn = said(record, "tea", "tea")
    assert record.say("ada", "tea, sent again", "Leisure", "k1") == turn
    [one] = turns_of(record.people.answers(), record.models.answers())
    assert (one.text, one.read) == ("tea", True)
    assert {answer.origin for answer in record.people.answers()} == {"person"}
    assert {answer.origin for answer in record.models.answers()} == {"model"}
    again = ChatRecord(Store(store.root), "persopilot")  # as after a kill: nothing was held back in memory
    assert turns_of(again.people.answers(), again.models.answers()) == [one]
    assert [fact.fact[1] for fact in learned_of(again.models.answers())] == ["tea"]


def test_a_reply_that_failed_is_null_and_the_next_one_counts(store: Store) -> None:
    record = ChatRecord(store, "persopilot")
    turn = said(record, "tea", "tea")
    record.reply(turn, None, "m", drew_on=[], failure="no connection")
    record.reply(turn, "Tea is fine.", "m", drew_on=["f"])
    first, second = replies_of(record.models.answers())
    assert (first.text, first.failure, second.text, second.failure) == (None, "no connection", "Tea is fine.", "")


def test_corrections_come_from_people_and_what_is_no_fact_is_dropped(store: Store) -> None:
    tables = built(store)
    record = ChatRecord(store, "persopilot")
    turn = said(record, "tea and thanks", "tea", "thanks")
    tea, thanks = learned_of(record.models.answers())
    maps = table(store, tables, "facts").filter(username="ada")["row_id"][0]
    record.correct(tea.id, ("likes", "green tea", "Leisure", "Outdoor"), "ada")
    record.correct(thanks.id, (), "ada")
    record.correct(maps, ("avoids", "maps", "Leisure", "Outdoor"), "ada")
    record.correct(maps, ("likes", "old maps", "Leisure", "Outdoor"), "ada")
    after = built(store)
    own = table(store, after, "known").filter(username="ada")
    assert own.select("relation", "object", "origin").rows() == [
        ("likes", "old maps", "person"),
        ("likes", "green tea", "person"),
    ]
    assert after["known"].dropped_by == {"not a fact": 1}
    assert corrections_of(record.people.answers())[maps].who == "ada"
    assert own["parents"].to_list() == [[maps], [turn]]


def test_a_fact_that_is_stated_twice_is_one_with_both_as_parents(store: Store) -> None:
    tables = built(store)
    turn = said(ChatRecord(store, "persopilot"), "maps", "maps")
    maps = table(store, tables, "facts").filter(username="ada")["row_id"][0]
    own = table(store, built(store), "known").filter(username="ada")
    assert own.select("object", "origin", "parents").rows() == [("maps", "source", [maps, turn])]


class TestDeleting:
    def test_a_fact_of_the_chat_goes_with_its_message_and_all_that_came_of_it(self, store: Store) -> None:
        record = ChatRecord(store, "persopilot")
        turn = said(record, "tea and honey", "tea", "honey")
        later = said(record, "how are you", key="k2")
        record.reply(turn, "Honey goes well with tea.", "m", drew_on=[])
        [fact, _] = learned_of(record.models.answers())
        record.reply(later, "Well, as you like tea.", "m", drew_on=[fact.id])
        kept = said(record, "bees", "bees", key="k3", who="bob")
        record.reply(kept, "Buzz.", "m", drew_on=[])
        built(store)
        reached = would_take_back(record, fact.id)
        assert [one.text for one in reached.turns] == ["tea and honey"]
        assert (len(reached.facts), len(reached.replies)) == (2, 2)
        held = {one.table.stage: one.rows for one in reached.asked.reach.held}
        assert (held["turns"], held["known"], held["personas"]) == (1, 2, 2)
        assert held["recommendations"] >= 2
        assert len(turns_of(record.people.answers())) == 3  # nothing is deleted yet
        take_back(record, fact.id, "ada")
        assert [one.text for one in turns_of(record.people.answers())] == ["how are you", "bees"]
        assert [one.text for one in replies_of(record.models.answers())] == ["Buzz."]
        after = built(store)
        assert set(table(store, after, "known")["object"]) == {"maps", "a walk by the river", "bees"}
        assert not {"tea", "honey"} & set(table(store, after, "recommendations")["object"])

    def test_a_fact_of_a_source_is_denied_and_replies_that_drew_on_it_go(self, store: Store) -> None:
        record = ChatRecord(store, "persopilot")
        maps = table(store, built(store), "facts").filter(username="ada")["row_id"][0]
        turn = said(record, "hello")
        record.reply(turn, "You like maps.", "m", drew_on=[maps])
        found = take_back(record, maps, "ada")
        assert (found.turns, list(found.facts), len(found.replies)) == ([], [maps], 1)
        assert replies_of(record.models.answers()) == []
        after = built(store)
        assert after["facts"].dropped_by == {"forgotten": 1}
        assert "maps" not in set(table(store, after, "personas")["object"])

    def test_before_any_build_and_twice(self, store: Store) -> None:
        record = ChatRecord(store, "persopilot")
        turn = said(record, "tea", "tea")
        assert take_back(record, turn, "ada").asked.reach.held == []
        assert turns_of(record.people.answers()) == []
        with pytest.raises(UsageError, match="is not a known message or fact, or was deleted already"):
            take_back(record, turn, "ada")

    def test_a_purge_leaves_nothing_of_it_in_the_store(self, store: Store) -> None:
        record = ChatRecord(store, "persopilot")
        secret = "I live in 7 Mill Lane, Ely"
        turn = said(record, secret, secret)
        record.reply(turn, "In Mill Lane?", "m", drew_on=[])
        built(store)
        take_back(record, turn, "ada")
        built(store)
        assert purge(store).found == []
        assert not [path for path in store.root.rglob("*") if path.is_file() and b"Mill Lane" in path.read_bytes()]
        assert LabelBook(store, "chat_persopilot", "model").answers(forgotten=True) == []
        assert [entry for book in (record.people, record.models) for entry in book.damage()] == []


def test_a_reply_that_cannot_be_stored_does_not_hold_up_the_next() -> None:
    replier = Replier(ModelSpec(engine="scripted", model="chatty"))
    answered = Event()

    def full(_: Any) -> None:
        raise OSError("no space left on device")

    try:
        assert replier.ask("first", full)
        assert replier.ask("second", lambda _: answered.set())
        assert answered.wait(60)
        assert "first" not in replier.pending  # so it can be asked again
    finally:
        replier.close()
