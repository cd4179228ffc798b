"""PersoPilot's loop: an analyst decides, offers are replied to, and the next build has learned from both."""

from __future__ import annotations

from pathlib import Path

import pytest
from persona_loop import decide, loop, people, reply, rows

from normloom.labelling.answers import Answer, now
from normloom.labelling.book import LabelBook
from normloom.labelling.queue import open_queue
from normloom.lineage.trace import trace
from normloom.schemas.people.analyst_tables import DECISIONS, REPLIES
from normloom.store.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return people(tmp_path / "people")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_the_least_sure_are_asked_about_with_what_the_assistant_says(store: Store, folder: Path) -> None:
    tables = loop(store, folder, "loop.ask=3")
    asked = rows(store, tables, "ask_persopilot_decisions")
    assert (asked["username"][0], set(asked["username"])) == ("ivy", {"ivy", "gus", "hal"})
    assert asked["score"].to_list() == [0.9, 0.9, 0.9]
    assert asked.filter(username="gus").select("facts", "cited", "accept").row(0) == (
        ["has: tents", "has: films", "has: sofas"],
        ["has: tents"],
        "would come",
    )
    assert tables["candidates"].dropped_by == {"not yet": 2}
    assert tables["predictions"].dropped_by == {"labelled": 4}


@pytest.mark.parametrize(("strategy", "first"), [("diverse", "ivy"), ("uncertain", "ivy")])
def test_a_strategy_chooses(store: Store, folder: Path, strategy: str, first: str) -> None:
    asked = rows(store, loop(store, folder, f"loop.strategy={strategy}", "loop.ask=2"), "candidates")
    assert (asked["username"][0], asked["strategy"][0], asked.height) == (first, strategy, 2)


def test_who_is_sure_to_accept_gets_an_offer_with_the_reason(store: Store, folder: Path) -> None:
    tables = loop(store, folder)
    [offer] = rows(store, tables, "offers").iter_rows(named=True)
    told = [offer[name] for name in ("username", "offer", "basis", "confidence", "status", "replied")]
    assert told == ["eve", "would come", "classifier", 1.0, "waiting", None]
    assert (offer["like"], offer["because"]) == ("ann", ["tents"])
    assert tables["offers"].dropped_by == {"listed": 4, "would decline": 1, "not sure enough": 3}


def test_decisions_and_replies_are_labels_of_the_next_build(store: Store, folder: Path) -> None:
    first = loop(store, folder)
    decide(store, gus="accept")
    decide(store, ivy="decline")
    reply(store, eve="declined")
    decide(store, who="ada", hal="accept")
    decide(store, who="bea", hal="decline")
    second = loop(store, folder)
    known = rows(store, second, "learned")
    since = known.filter(known["told_by"] != "listed")
    assert {row[0]: row[1:] for row in since.select("username", "accepted", "told_by").iter_rows()} == {
        "gus": (True, "analyst"),
        "ivy": (False, "analyst"),
        "eve": (False, "reply"),
    }
    assert second["learned"].dropped_by == {"people disagree": 1}
    assert rows(store, second, "leave_one_out").height == 7
    status = {row["username"]: row for row in rows(store, second, "offers").iter_rows(named=True)}
    assert [status["eve"][name] for name in ("status", "basis", "confidence")] == ["declined", "classifier", 1.0]
    assert [status["gus"][name] for name in ("status", "basis", "confidence")] == ["waiting", "analyst", None]
    assert open_queue(store, REPLIES).progress().answered == 1
    assert {"gus", "ivy", "eve"}.isdisjoint(rows(store, second, "ask_persopilot_decisions")["username"])
    assert second["assistance"].key == first["assistance"].key  # of the listed users: nobody is asked again
    reasons = trace(store, status["gus"]["row_id"])
    assert {"labels_persopilot_decisions", "facts", "members"} <= {row.stage for row in reasons.rows}
    reply(store, gus="accepted")
    third = loop(store, folder)
    [gus] = rows(store, third, "offers").filter(username="gus").iter_rows(named=True)
    assert (gus["status"], gus["basis"]) == ("accepted", "analyst")
    assert third["learned"].dropped_by == {"people disagree": 1, "overruled": 1}  # the reply counts, not the decision


def test_an_answer_is_held_to_what_was_predicted_before_it(tmp_path: Path, folder: Path) -> None:
    def taught(name: str, **last: str) -> list[dict[str, object]]:
        store = Store(tmp_path / name)
        loop(store, folder)
        decide(store, gus="decline")
        decide(store, **last)
        return rows(store, loop(store, folder), "taught").sort("place").to_dicts()

    one, other = taught("one", hal="accept"), taught("other", hal="decline")
    assert [(row["username"], row["labelled"]) for row in one] == [("gus", 4), ("hal", 5)]
    same = ("username", "predicted", "confidence", "covered", "labelled")
    assert [[row[name] for name in same] for row in one] == [[row[name] for name in same] for row in other]
    assert [row["accepted"] for row in one] != [row["accepted"] for row in other]


def test_answers_outlive_facts_that_are_learned_later(store: Store, folder: Path) -> None:
    loop(store, folder)
    decide(store, gus="accept")
    people(folder, gus=["rain"])
    known = rows(store, loop(store, folder), "learned").filter(username="gus")
    assert known.select("accepted", "told_by").row(0) == (True, "analyst")
    assert known["persona"][0].endswith("has rain")


def test_what_a_model_answers_is_no_label(store: Store, folder: Path) -> None:
    first = loop(store, folder)
    [row] = open_queue(store, DECISIONS).next("a model")
    said = Answer(row=row.row, question="side", value="accept", who="m", when=now(), origin="model", tool="test")
    LabelBook(store, DECISIONS, "model").add([said])
    second = loop(store, folder)
    assert second["learned"].key == first["learned"].key
    assert open_queue(store, DECISIONS).progress().answered == 0
