"""Traces of generated flows, held to a search by hand."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from test_trace import PARENTS, make

from normloom.core.stage import Output, Stage, dropped, dropped_frame
from normloom.lineage.trace import LedgerEntry, trace
from normloom.store.store import Store
from normloom.testing.toy import WORDS, words_stage


class Woven(BaseModel):
    """For each row to make the places of its parents; for each row to drop its place and its winner's."""

    model_config = ConfigDict(frozen=True)
    rows: tuple[tuple[int, ...], ...]
    losses: tuple[tuple[int, int | None], ...] = ()


def weave(rows: pl.DataFrame, arguments: Woven) -> Output:
    ids = rows["row_id"].to_list()
    made: dict[str, list[Any]] = {
        "parents": [[ids[place] for place in places] for places in arguments.rows],
        "content": [str(number) for number in range(len(arguments.rows))],
        "word": [str(places) for places in arguments.rows],
    }
    out = [
        dropped({"row_id": ids[loser], "word": str(loser)}, "lost", winner=None if winner is None else ids[winner])
        for loser, winner in arguments.losses
    ]
    schema: dict[str, Any] = {"parents": PARENTS, "content": pl.String, "word": pl.String}
    return Output(
        rows=pl.DataFrame(made, schema=schema), dropped=dropped_frame(out), attempts=len(made["word"]) + len(out)
    )


@st.composite
def woven(draw: st.DrawFn) -> list[Stage]:
    """Stages whose rows have up to three parents in any tables before them, and lose rows to each other."""
    stages = [words_stage(*"abc"[: draw(st.integers(1, 3))])]
    there = len(stages[0].arguments.words)  # type: ignore[attr-defined]  # of the toy
    for number in range(draw(st.integers(1, 3))):
        places = st.integers(0, there - 1)
        rows = draw(st.lists(st.lists(places, max_size=3, unique=True).map(tuple), min_size=1, max_size=3))
        losses = draw(st.lists(st.tuples(places, st.none() | places), max_size=3))
        stages.append(
            Stage(
                name=f"stage_{number}",
                function=weave,
                arguments=Woven(rows=tuple(rows), losses=tuple(losses)),
                contract=WORDS,
                inputs=tuple(stages),
            )
        )
        there += len(rows)
    return stages


class Oracle:
    """All rows and ledger entries of a store in memory, and a row's history by plain loops."""

    def __init__(self, store: Store) -> None:
        manifests = store.newest("toy")
        tables = {manifest.stage: store.scan(manifest.ref).collect().to_dicts() for manifest in manifests}
        self.stage = {row["row_id"]: stage for stage, rows in tables.items() for row in rows}
        self.parents = {row["row_id"]: row["parents"] for rows in tables.values() for row in rows}
        self.ledger = [
            (manifest.stage, entry["row_id"], entry["winner"])
            for manifest in manifests
            for entry in store.scan(manifest.ref, "dropped").collect().to_dicts()
        ]

    def ancestors(self, row: str) -> set[str]:
        return {row}.union(*(self.ancestors(parent) for parent in self.parents[row]))

    def descendants(self, row: str) -> set[str]:
        return {other for other in self.parents if row in self.ancestors(other)}

    def edges(self, rows: set[str]) -> set[tuple[str, str]]:
        return {(parent, child) for child in rows for parent in self.parents[child] if parent in rows}

    def losses(self, rows: set[str]) -> list[tuple[str, str, str | None]]:
        return sorted((entry for entry in self.ledger if rows & set(entry[1:])), key=str)

    def siblings(self, rows: set[str]) -> set[str]:
        families = {(self.stage[row], parent) for row in rows for parent in self.parents[row]}
        return {
            row for row in self.parents if any((self.stage[row], one) in families for one in self.parents[row])
        } - rows

    def carried(self, row: str) -> set[str]:
        """Return the row and those that were made of it alone, one in a stage."""
        alone = [child for child, parents in self.parents.items() if parents == [row]]
        stages = [self.stage[child] for child in alone]
        onward = [child for child in alone if stages.count(self.stage[child]) == 1]
        return {row}.union(*(self.carried(child) for child in onward))

    def reached(self, row: str) -> set[str]:
        lost = {entry[1] for entry in self.ledger}
        return {self.stage[last] for last in self.carried(row) if self.carried(last) == {last} and last not in lost}


def flat(entries: tuple[LedgerEntry, ...]) -> list[tuple[str, str, str | None]]:
    return sorted(((entry.stage, entry.row_id, entry.winner) for entry in entries), key=str)


@settings(max_examples=12)
@given(woven())
def test_forward_and_backward_are_inverse_and_as_a_search_by_hand_finds_them(stages: list[Stage]) -> None:
    with TemporaryDirectory() as place:
        store = Store(Path(place))
        make(store, *stages)
        oracle = Oracle(store)
        backward = {row: trace(store, row) for row in oracle.parents}
        forward = {row: trace(store, row, forward=True) for row in oracle.parents}
    before = {row: {other.row_id for other in found.rows} for row, found in backward.items()}
    after = {row: {other.row_id for other in found.rows} for row, found in forward.items()}
    assert {(one, other) for one in after for other in after[one]} == {
        (one, other) for other in before for one in before[other]
    }
    for row in oracle.parents:
        assert before[row] == oracle.ancestors(row)
        assert after[row] == oracle.descendants(row)
        for found, rows in ((backward[row], before[row]), (forward[row], after[row])):
            assert found.rows[0].row_id == row
            assert len(found.rows) == len(rows)
            assert sorted(found.edges) == sorted(oracle.edges(rows))
            assert flat(found.ledger) == oracle.losses(rows)
        assert {sibling.row.row_id for sibling in backward[row].siblings} == oracle.siblings(before[row])
        for sibling in backward[row].siblings:
            carried = oracle.carried(sibling.row.row_id)
            assert flat(sibling.ledger) == sorted((loss for loss in oracle.ledger if loss[1] in carried), key=str)
            assert set(sibling.reached) == oracle.reached(sibling.row.row_id)
