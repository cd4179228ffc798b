"""Rows that keep their ids although what came into them is taken back: made again, they hold nothing of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

import normloom as nl
from normloom.core.errors import StoreError
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.history.removal.forget import ask, forget
from normloom.history.removal.purge import purge
from normloom.lineage.reach import reach, source_rows
from normloom.store.forgotten import deny_list
from normloom.store.store import Store
from normloom.testing import made

NOTES = ["Ada likes tea", "Ada lives in 7 Mill Lane, Ely"]


@nl.step(makes={"name": pl.String, "notes": pl.Int64})
def described(rows: pl.DataFrame, notes: pl.DataFrame) -> pl.DataFrame:
    """Count notes: each person keeps their id and has all notes as parents."""
    through = pl.Series([notes["row_id"].to_list()] * rows.height, dtype=pl.List(pl.String))
    return rows.with_columns(notes=pl.lit(notes.height).cast(pl.Int64), through=through)


@nl.step(makes={"name": pl.String, "notes": pl.Int64})
def released(rows: pl.DataFrame) -> pl.DataFrame:
    return rows


def flow() -> Stage:
    people = nl.table(pl.DataFrame({"name": ["ada", "bob"]}), name="people")
    return released(described(people, nl.table(pl.DataFrame({"note": NOTES}), name="notes")))


def build(store: Store) -> dict[str, Manifest]:
    return made("toy", [flow()], store)


def rows(store: Store, table: Manifest) -> pl.DataFrame:
    return store.scan(table.ref).collect()


def forgotten(store: Store) -> dict[str, Manifest]:
    """Build, take the second note back, and return the tables of that build."""
    before = build(store)
    [note] = rows(store, before["notes"]).filter(note=NOTES[1])["row_id"]
    found = ask(store, [note])
    assert {held.table.stage: held.rows for held in found.reach.held} == {"notes": 1, "described": 2, "released": 2}
    forget(store, found, reason="withdrawn")
    return before


def test_a_row_that_was_made_again_is_not_reached_and_its_old_table_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = forgotten(store)
    with pytest.raises(StoreError, match="no build has replaced"):
        purge(store)
    after = build(store)
    assert rows(store, after["released"])["row_id"].equals(rows(store, before["released"])["row_id"])
    found = reach(store, source_rows(store, deny_list(store)))
    assert {str(held.table) for held in found.held} == {str(before[s].ref) for s in ("notes", "described", "released")}
    assert purge(store).found == []
    assert store.published("toy", "released", before["released"].key) is None
    assert rows(store, after["released"])["notes"].to_list() == [1, 1]
    assert purge(store).removed == []  # nothing is left to remove, and nothing is found


def test_an_old_table_is_removed_although_what_it_came_of_is_gone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = forgotten(store)
    build(store)
    for stage in ("notes", "described"):
        shutil.rmtree(store.table_directory(before[stage].ref))
    assert purge(store).found == []
    assert store.published("toy", "released", before["released"].key) is None
