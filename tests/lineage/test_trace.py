from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from pydantic import BaseModel, ConfigDict

from normloom.core.contract import Check, Contract
from normloom.core.errors import StoreError, UsageError
from normloom.core.rows.ids import row_id
from normloom.core.stage import Output, Stage, dropped, dropped_frame, quarantined, quarantined_frame
from normloom.core.table import Manifest
from normloom.history.removal.forget import _origin
from normloom.lineage.trace import LedgerEntry, Trace, _entry, trace
from normloom.lineage.trace_search import relations
from normloom.store.store import Store
from normloom.testing.toy import WORDS, Words, read_words, runner, words_stage

DRAWN = Contract(columns={"word": pl.String(), "draw": pl.Int64(), "score": pl.Float64()})
PARENTS = pl.List(pl.String())


class Nothing(BaseModel):
    model_config = ConfigDict(frozen=True)


def unique(rows: pl.DataFrame, arguments: Nothing) -> Output:  # noqa: ARG001
    """Keep one row of each first letter; put words with a digit aside."""
    kept: dict[str, dict[str, object]] = {}
    out, aside = [], []
    for row in rows.iter_rows(named=True):
        if not row["word"].isalpha():
            aside.append(quarantined(row, "letters", f"{row['word']} has a digit"))
        elif row["word"][0] in kept:
            out.append(dropped(row, "duplicate", winner=str(kept[row["word"][0]]["row_id"])))
        else:
            kept[row["word"][0]] = row
    return Output(
        rows=pl.DataFrame([{"row_id": row["row_id"], "word": row["word"]} for row in kept.values()]),
        dropped=dropped_frame(out),
        quarantined=quarantined_frame(aside),
    )


def draw(rows: pl.DataFrame, arguments: Nothing) -> Output:  # noqa: ARG001
    drawn = [
        {"row_id": row_id, "word": word, "draw": number, "score": float("nan") if number == 2 else number / 2}
        for row_id, word in rows.select("row_id", "word").iter_rows()
        for number in range(3)
    ]
    return Output(rows=pl.DataFrame(drawn), attempts=len(drawn))


def copy(rows: pl.DataFrame, arguments: Nothing) -> Output:  # noqa: ARG001
    return Output(rows=rows)


def pick(rows: pl.DataFrame, arguments: Nothing) -> Output:  # noqa: ARG001
    """Keep draw 1 of each word; draw 0 loses to it and draw 2 to none."""
    winners = {row["word"]: row["row_id"] for row in rows.filter(draw=1).to_dicts()}
    out = [dropped(row, "lower", winner=winners[row["word"]]) for row in rows.filter(draw=0).to_dicts()]
    out += [dropped(row, "no score") for row in rows.filter(draw=2).to_dicts()]
    return Output(rows=rows.filter(draw=1), dropped=dropped_frame(out))


def join(rows: pl.DataFrame, arguments: Nothing) -> Output:  # noqa: ARG001
    """Make one row of all."""
    joined = {"parents": [rows["row_id"].to_list()], "content": ["all"], "word": [" ".join(rows["word"])]}
    return Output(rows=pl.DataFrame(joined), attempts=1)


def later(name: str, function: object, upstream: Stage, contract: Contract) -> Stage:
    return Stage(name=name, function=function, arguments=Nothing(), contract=contract, inputs=(upstream,))  # type: ignore[arg-type]


def chain(*words: str) -> list[Stage]:
    first = words_stage(*words)
    second = later("unique", unique, first, WORDS)
    third = later("draw", draw, second, DRAWN)
    fourth = later("copy", copy, third, DRAWN)
    fifth = later("pick", pick, fourth, DRAWN)
    return [first, second, third, fourth, fifth, later("joined", join, fifth, WORDS)]


def make(store: Store, *stages: Stage, system: str = "toy") -> dict[str, Manifest]:
    loom = replace(runner(store), system=system)
    made: dict[str, Manifest] = {}
    for stage in stages:
        made[stage.name], _ = loom.run(stage, [made[upstream.name].ref for upstream in stage.inputs], [])
    return made


def id_of(stage: str, *parents: str, ordinal: int = 0) -> str:
    return row_id("toy", stage, parents, ordinal)


AB, AC, B = (id_of("words", word) for word in ("ab", "ac", "b"))
KEPT = id_of("unique", AB)
DRAWS = [id_of("draw", KEPT, ordinal=number) for number in range(3)]
COPIES = [id_of("copy", drawn) for drawn in DRAWS]
PICKED = id_of("pick", COPIES[1])
PICKED_B = id_of("pick", id_of("copy", id_of("draw", id_of("unique", B), ordinal=1)))
JOINED = id_of("joined", PICKED, PICKED_B, "all")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A source of four words, of which one is dropped and one quarantined, and five stages after it."""
    store = Store(tmp_path_factory.mktemp("store"))
    make(store, *chain("ab", "ac", "b", "b2"))
    return store


def stages_of(found: Trace) -> list[str]:
    return [row.stage for row in found.rows]


def told(entries: tuple[LedgerEntry, ...]) -> list[tuple[str, str, str, str | None]]:
    return [(entry.stage, entry.kind, entry.reason or "", entry.winner) for entry in entries]


def test_backward_a_row_of_two_parents_leads_to_both_ingested_rows(store: Store) -> None:
    found = trace(store, JOINED)
    assert (found.system, found.row_id, found.forward, found.missing) == ("toy", JOINED, False, ())
    twice = ["pick", "copy", "draw", "unique", "words"]
    assert stages_of(found) == ["joined", *(stage for stage in twice for _ in range(2))]
    assert [row.values for row in found.rows if row.stage == "words"] == [{"word": "ab"}, {"word": "b"}]
    assert found.rows[0].parents == (PICKED, PICKED_B)
    assert {(PICKED, JOINED), (PICKED_B, JOINED), (COPIES[1], PICKED), (AB, KEPT)} <= set(found.edges)
    assert len(found.edges) == 10


def test_backward_shows_what_lost_in_favour_of_a_row_on_the_way(store: Store) -> None:
    found = trace(store, PICKED)
    [duplicate] = [entry for entry in found.ledger if entry.winner == AB]
    assert (duplicate.stage, duplicate.row_id, duplicate.reason) == ("unique", AC, "duplicate")
    assert duplicate.payload == {"word": "ac"}
    [lower] = [entry for entry in found.ledger if entry.winner == COPIES[1]]
    assert (lower.stage, lower.row_id, lower.payload["draw"]) == ("pick", COPIES[0], 0)
    assert len(found.ledger) == 2


def test_backward_follows_the_siblings_of_each_row_to_where_they_were_taken_out(store: Store) -> None:
    found = {sibling.row.row_id: sibling for sibling in trace(store, PICKED).siblings}
    assert set(found) == {DRAWS[0], DRAWS[2]}
    assert {sibling.beside for sibling in found.values()} == {(DRAWS[1],)}
    assert {sibling.row.stage for sibling in found.values()} == {"draw"}
    assert told(found[DRAWS[0]].ledger) == [("pick", "dropped", "lower", COPIES[1])]
    assert told(found[DRAWS[2]].ledger) == [("pick", "dropped", "no score", None)]
    assert found[DRAWS[2]].row.values == {"word": "ab", "draw": 2, "score": None}
    assert [sibling.reached for sibling in found.values()] == [(), ()]


def test_a_sibling_that_was_kept_says_where_it_is_last_found(store: Store) -> None:
    found = {sibling.row.row_id: sibling for sibling in trace(store, DRAWS[0]).siblings}
    assert found[DRAWS[1]].reached == ("pick",)  # where a row is made of several, it is followed no further
    assert found[DRAWS[1]].ledger == ()


def test_a_sibling_is_followed_to_where_it_becomes_several_rows(tmp_path: Path) -> None:
    store = Store(tmp_path)
    words = words_stage("ab")
    first = later("first", draw, words, DRAWN)
    make(store, words, first, later("second", draw, first, DRAWN))
    found = trace(store, id_of("second", id_of("first", AB)))
    assert {sibling.row.stage: sibling.reached for sibling in found.siblings} == {
        "first": ("first",),
        "second": ("second",),
    }


def test_forward_finds_all_that_came_of_a_row(store: Store) -> None:
    found = trace(store, AB, forward=True)
    assert stages_of(found) == ["words", "unique", *["draw"] * 3, *["copy"] * 3, "pick", "joined"]
    assert {(AB, KEPT), (KEPT, DRAWS[2]), (COPIES[1], PICKED), (PICKED, JOINED)} <= set(found.edges)
    assert (PICKED_B, JOINED) not in found.edges
    assert [row.row_id for row in found.rows].count(JOINED) == 1
    assert {(entry.row_id, entry.reason) for entry in found.ledger} == {
        (AC, "duplicate"),
        (COPIES[0], "lower"),
        (COPIES[2], "no score"),
    }
    assert found.siblings == ()


@pytest.mark.parametrize("forward", [False, True])
def test_a_dropped_row_says_by_which_stage_why_and_for_which_winner(store: Store, forward: bool) -> None:
    found = trace(store, AC, forward=forward)
    assert stages_of(found) == ["words"]
    assert told(found.ledger) == [("unique", "dropped", "duplicate", AB)]


@pytest.mark.parametrize("forward", [False, True])
def test_a_row_put_aside_says_by_which_rule(store: Store, forward: bool) -> None:
    found = trace(store, id_of("words", "b2"), forward=forward)
    assert told(found.ledger) == [("unique", "quarantined", "b2 has a digit", None)]
    assert found.ledger[0].rule == "letters"
    assert found.ledger[0].payload == {"word": "b2"}


def test_a_row_that_only_a_ledger_knows_is_found(tmp_path: Path) -> None:
    short = Check(
        expectation="expect_column_value_lengths_to_be_between",
        arguments={"column": "word", "max_value": 2},
        on_fail="quarantine",
    )
    words = Words(words=("a", "long"))
    stage = Stage(name="words", function=read_words, arguments=words, contract=replace(WORDS, checks=(short,)))
    make(Store(tmp_path), stage)
    found = trace(Store(tmp_path), id_of("words", "long"))
    assert found.rows == ()
    assert found.edges == ()
    [entry] = found.ledger
    assert (entry.stage, entry.kind, entry.payload) == ("words", "quarantined", {"word": "long"})
    with pytest.raises(UsageError, match="has no source row in the newest tables: give its text instead"):
        _origin(Store(tmp_path), id_of("words", "long"))


def test_a_parent_that_is_no_longer_there_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make(store, *chain("ab", "b"))
    make(store, words_stage("b", "c"))
    found = trace(store, PICKED)
    assert found.missing == (AB,)
    assert stages_of(found) == ["pick", "copy", "draw", "unique"]
    assert (AB, KEPT) in found.edges


def test_a_trace_is_json(store: Store) -> None:
    found = trace(store, PICKED)
    as_json = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert set(as_json) == {"system", "row_id", "direction", "rows", "edges", "ledger", "siblings", "missing", "models"}
    assert as_json["direction"] == "backward"
    assert as_json["rows"][0] == {
        "stage": "pick",
        "row_id": PICKED,
        "parents": [COPIES[1]],
        "values": {"word": "ab", "draw": 1, "score": 0.5},
    }
    assert as_json["edges"][0] == {"parent": COPIES[1], "child": PICKED}
    assert set(as_json["ledger"][0]) == {"stage", "kind", "row_id", "rule", "reason", "winner", "payload"}
    [lower] = [sibling for sibling in as_json["siblings"] if sibling["row_id"] == DRAWS[0]]
    assert set(lower) == {"stage", "row_id", "parents", "values", "beside", "reached", "ledger"}
    assert lower["ledger"][0]["reason"] == "lower"


def test_the_first_digits_of_an_id_are_enough(store: Store) -> None:
    assert trace(store, PICKED[:6]) == trace(store, PICKED)
    assert trace(store, PICKED, system="toy") == trace(store, PICKED)


def test_digits_that_begin_several_ids_are_refused_with_the_candidates(tmp_path: Path) -> None:
    store = Store(tmp_path)
    words = [word for word in map(str, range(3000)) if id_of("words", word).startswith("00")]
    assert len(words) > 8
    make(store, words_stage(*words))
    ids = sorted(id_of("words", word) for word in words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("normloom.lineage.trace_search.MIN_PREFIX", 2)
        with pytest.raises(UsageError, match="matches more than one row id") as caught:
            trace(store, "00")
    assert all(f"{name} (words)" in str(caught.value) for name in ids[:8])
    assert ids[8] not in str(caught.value)
    assert "and others; give more digits" in str(caught.value)


def test_an_id_that_cannot_be_found_says_where_was_looked(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"looked in toy/words, toy/unique, toy/draw, toy/copy, toy/pick, toy/joined"):
        trace(store, "0" * 32)
    with pytest.raises(UsageError, match=r"'abc' is too short for a row id: give at least 6"):
        trace(store, "abc")
    with pytest.raises(UsageError, match=r"unknown system 'other' in .*; available: toy"):
        trace(store, PICKED, system="other")
    with pytest.raises(UsageError, match=r"no tables in .* yet: run normloom build first"):
        trace(Store(tmp_path), PICKED)


def test_systems_are_told_apart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make(store, words_stage("ab"))
    make(store, words_stage("ab"), system="other")
    assert trace(store, AB).system == "toy"
    assert trace(store, row_id("other", "words", ["ab"], 0)).system == "other"
    with pytest.raises(UsageError, match="looked in other/words"):
        trace(store, AB, system="other")


def test_a_row_of_two_parents_cannot_be_forgotten_by_its_id(store: Store) -> None:
    with pytest.raises(UsageError, match=rf"row {JOINED} is derived from 2 source rows .*: give the ids"):
        _origin(store, JOINED)


def test_tables_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make(store, *chain("ab", "ac"))
    known = store.scan(store.newest("toy")[0].ref).collect()["row_id"][0]
    for file in tmp_path.rglob("rows-*.parquet"):
        file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(StoreError, match=r"the tables in .* cannot be read: .*; rerun the command, or rebuild them"):
        trace(store, known)


def test_a_record_of_a_source_may_be_no_json(store: Store) -> None:
    told = json.dumps({"row_id": "x", "rule": "odd", "reason": "why", "payload": "one, two"})
    entry = _entry(relations(store, None)[0], told)
    assert (entry.row_id, entry.payload) == ("x", "one, two")
