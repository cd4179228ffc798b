"""Columns that a step is not handed come back with the rows that it keeps, and in what its ledgers say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import normloom as nl
from normloom.core.contract import Contract
from normloom.core.errors import ConfigError, ContractError
from normloom.core.fan_out import each
from normloom.core.stage import Stage, dropped_rows
from normloom.core.table import Manifest
from normloom.store.parts import ROW_GROUP
from normloom.store.store import Store
from normloom.testing import made

ROWS = 2 * ROW_GROUP + 100
TEXTS = pl.List(pl.String())
KEPT = Contract(columns={"word": pl.String(), "number": pl.Int64(), "shares": pl.List(pl.Float64()), "seen": TEXTS})


def odd(rows: pl.DataFrame) -> nl.Output:
    is_odd = pl.col("number") % 2 == 1
    kept = rows.filter(is_odd).drop("parents", strict=False)
    return nl.Output(
        kept.with_columns(seen=pl.lit(rows.columns, dtype=TEXTS)),
        dropped=dropped_rows(rows.filter(~is_odd), reason="even"),
    )


carrying = nl.step(makes=KEPT, name="odd", reads=("number",), carries=True, fan_out=each())(odd)
holding = nl.step(makes=KEPT, name="odd", fan_out=each())(odd)


@nl.step(makes=KEPT, reads=("number",), carries=True, fan_out=each())
def turned(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.reverse().with_columns(seen=pl.lit([], dtype=TEXTS))


def numbers(rows: int = ROWS, name: str = "numbers") -> Stage:
    number = pl.int_range(rows)
    shares = pl.concat_list(number / 2, number / 3)
    return nl.table(pl.select(word=pl.format("word {}", number), number=number, shares=shares), name=name)


def table(store: Store, manifest: Manifest, kind: str) -> pl.DataFrame:
    return store.scan(manifest.ref, kind).collect()  # type: ignore[arg-type]  # one of the kinds


def test_rows_and_ledgers_are_those_of_a_step_that_holds_all_columns(tmp_path: Path) -> None:
    tables: list[list[pl.DataFrame]] = []
    for step in (carrying, holding):
        store = Store(tmp_path / str(len(tables)))
        manifest = made("toy", [step(numbers())], store)["odd"]
        tables.append([table(store, manifest, kind) for kind in ("rows", "dropped")])
    (rows, told), (whole, all_told) = tables
    assert set(rows["seen"].explode()) == {"row_id", "number"}
    assert rows.drop("seen").equals(whole.drop("seen"))
    assert told.drop("payload").equals(all_told.drop("payload"))
    assert [json.loads(one) for one in told["payload"]] == [json.loads(one) for one in all_told["payload"]]
    assert (rows.height, told.height) == (ROWS // 2, ROWS // 2)


def test_a_table_without_rows_and_one_of_which_none_stays(tmp_path: Path) -> None:
    for count in (0, 1):
        store = Store(tmp_path / str(count))
        manifest = made("toy", [carrying(numbers(count))], store)["odd"]
        rows = table(store, manifest, "rows")
        assert (rows.height, rows.schema) == (0, KEPT.schema)
        assert manifest.count("dropped") == count


def test_further_columns_come_after_those_of_the_contract(tmp_path: Path) -> None:
    store, wider = Store(tmp_path), Contract(columns={"number": pl.Int64()}, extra=True)
    manifest = made("toy", [carrying(numbers(4), contract=wider)], store)["odd"]
    rows = table(store, manifest, "rows")
    assert rows.columns == ["row_id", "parents", "number", "word", "shares", "seen"]
    assert rows["word"].to_list() == ["word 1", "word 3"]


def test_parts_are_kept_if_all_columns_are_the_same(tmp_path: Path) -> None:
    store, parts = Store(tmp_path), carrying(numbers(4), part_rows=2)
    first = made("toy", [parts], store)["odd"]
    words = pl.select(word=pl.lit(["word 0", "word 1", "word 2", "other"])).explode("word")
    others = nl.table(
        words.with_columns(number=pl.int_range(4), shares=pl.concat_list(pl.int_range(4) / 2, pl.int_range(4) / 3)),
        name="numbers",
    )
    again = made("toy", [carrying(others, part_rows=2)], store)["odd"]
    assert again.work is not None
    assert (again.work.parts, again.parts[0].files["rows"].checksum) == (1, first.parts[0].files["rows"].checksum)
    assert table(store, again, "rows")["word"].to_list() == ["word 1", "other"]


def test_rows_in_another_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="its rows must be rows that it read, in the same order"):
        made("toy", [turned(numbers())], Store(tmp_path))


def test_a_null_in_a_column_that_is_carried_is_refused(tmp_path: Path) -> None:
    some = nl.table(pl.DataFrame({"word": [None, "b"], "number": [1, 3], "shares": [[1.0], [2.0]]}), name="numbers")
    with pytest.raises(ContractError, match="column 'word' may not be null, but is in 1 row "):
        made("toy", [carrying(some)], Store(tmp_path))


def test_keys_are_looked_at_in_the_whole_table(tmp_path: Path) -> None:
    store, keyed = Store(tmp_path), replace(KEPT, keys=("word",))
    manifest = made("toy", [carrying(numbers(2), contract=keyed)], store)["odd"]
    assert table(store, manifest, "rows")["seen"].to_list() == [["row_id", "number", "word"]]
    with pytest.raises(ContractError, match=r"key .* is not unique"):
        made("toy", [carrying([numbers(), numbers(name="same")], contract=keyed)], store)


def test_what_a_step_is_handed_must_be_said() -> None:
    with pytest.raises(ConfigError, match="`reads` must name those that it needs itself"):
        nl.step(makes=KEPT, name="odd", carries=True)(odd)(numbers(1))
