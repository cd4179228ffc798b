from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import normloom as nl
from normloom.core.contract import Action, Check, Contract
from normloom.core.errors import (
    AccountingError,
    CheckError,
    ContractError,
    QuarantineBudgetError,
    StageError,
    StoreError,
)
from normloom.core.rows.ids import row_id
from normloom.core.stage import Output, Stage, quarantined, quarantined_frame
from normloom.core.table import Manifest
from normloom.store.layout import part_marker
from normloom.store.store import Store
from normloom.testing import made
from normloom.testing.toy import SCRIPTED, WORDS, Words, echo_stage, runner, words_stage
from normloom.workers.parts.job import PartJob
from normloom.workers.parts.part import run_part


def run(store: Store, words: Stage, *later: Stage) -> tuple[Manifest, bool]:
    loom = runner(store)
    manifest, reused = loom.run(words, [], [])
    for stage in later:
        manifest, reused = loom.run(stage, [manifest.ref], [])
    return manifest, reused


def test_table_holds_ids_parents_and_is_reused(tmp_path: Path) -> None:
    store, words = Store(tmp_path), words_stage("a", "b", "c")
    manifest, reused = run(store, words, echo_stage(words, copies=2))
    rows = store.scan(manifest.ref).collect()
    first = row_id("toy", "words", ["a"], 0)
    assert not reused
    assert rows["word"].to_list() == ["a", "a", "b", "b", "c", "c"]
    assert rows["parents"].to_list()[:2] == [[first], [first]]
    assert rows["row_id"].to_list()[:2] == [row_id("toy", "echo", [first], 0), row_id("toy", "echo", [first], 1)]
    assert len(manifest.parts) == 2
    again, reused = run(store, words, echo_stage(words, copies=2))
    assert reused
    assert again == manifest


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    store, words = Store(tmp_path), words_stage("a", "b", "c", "d")
    manifest, _ = run(store, words, echo_stage(words, drop="b", aside="c"))
    assert (manifest.rows_in, manifest.count("rows"), manifest.count("dropped"), manifest.count("quarantined")) == (
        4,
        2,
        1,
        1,
    )
    assert manifest.attempts == 4
    assert manifest.dropped_by == {"asked for": 1}
    lost = store.scan(manifest.ref, "dropped").collect().row(0, named=True)
    assert lost["row_id"] == row_id("toy", "words", ["b"], 0)
    assert json.loads(lost["payload"]) == {"word": "b"}


def swallow(rows: pl.DataFrame, arguments: object) -> Output:  # noqa: ARG001
    return Output(rows=rows.head(1))


def test_a_row_that_vanishes_fails_the_stage(tmp_path: Path) -> None:
    words = words_stage("a", "b", "c")
    stage = Stage(name="swallow", function=swallow, arguments=words.arguments, contract=words.contract, inputs=(words,))
    with pytest.raises(
        AccountingError,
        match=r"3 rows were attempted, but 1 came out, .* \(1 in all\): return an Output that says why .*dropped",
    ):
        run(Store(tmp_path), words, stage)


def test_a_row_that_raises_is_found_and_put_aside_alone(tmp_path: Path) -> None:
    words = words_stage(*"abcdefgh", "bad", *"ijk")
    model = SCRIPTED.model_copy(update={"options": {"raise_on": "bad"}})
    manifest, _ = run(Store(tmp_path), words, echo_stage(words, model=model, part_rows=6))
    assert manifest.count("rows") == 11
    assert manifest.quarantined_by == {"poison": 1}
    aside = Store(tmp_path).scan(manifest.ref, "quarantined").collect().row(0, named=True)
    assert aside["row_id"] == row_id("toy", "words", ["bad"], 0)
    assert "ValueError: scripted failure" in aside["reason"]


def test_quarantine_budget(tmp_path: Path) -> None:
    words = words_stage("bad 1", "bad 2", "fine")
    model = SCRIPTED.model_copy(update={"options": {"raise_on": "bad"}})
    with pytest.raises(
        QuarantineBudgetError,
        match=r"put 2 of 3 rows into quarantine \(poison 2\), more than its budget of 50%: 'ValueError: scripted "
        r"failure.*' \(row \w+\); fix the input, or raise quarantine_budget",
    ):
        run(Store(tmp_path), words, echo_stage(words, model=model))


def test_a_whole_table_stage_that_raises_fails(tmp_path: Path) -> None:
    words = words_stage("bad", "fine")
    model = SCRIPTED.model_copy(update={"options": {"raise_on": "bad"}})
    with pytest.raises(StageError, match="stage 'echo' failed in part 0: ValueError"):
        run(Store(tmp_path), words, echo_stage(words, model=model, part_rows=None))


def passing(rows: pl.DataFrame, arguments: object) -> Output:  # noqa: ARG001
    return Output(rows=rows)


def checked(words: Stage, on_fail: Action) -> Stage:
    check = Check(
        expectation="expect_column_value_lengths_to_be_between",
        arguments={"column": "word", "max_value": 3},
        on_fail=on_fail,
    )
    contract = Contract(columns=words.contract.columns, checks=(check,))
    return Stage(
        name="checked",
        function=passing,
        arguments=words.arguments,
        contract=contract,
        inputs=(words,),
        part_rows=2,
    )


def test_a_check_can_warn_quarantine_or_stop(tmp_path: Path) -> None:
    store, words = Store(tmp_path), words_stage("one", "two", "three", "ten")
    warned, _ = run(store, words, checked(words, "warn"))
    assert [(result.passed, result.on_fail) for result in warned.checks] == [(False, "warn")]
    assert warned.count("rows") == 4
    aside, _ = run(store, words, checked(words, "quarantine"))
    assert (aside.count("rows"), aside.count("quarantined")) == (3, 1)
    assert aside.attempts == 4
    assert len(list(store.table_directory(aside.ref).glob("rows-*.parquet"))) == len(aside.parts)
    assert store.scan(aside.ref).collect()["word"].to_list() == ["one", "two", "ten"]
    with pytest.raises(CheckError, match=r"stage 'checked' is not published.*1 of 4 rows.*three"):
        run(store, words, checked(words, "stop"))
    assert store.current("toy", "checked") == aside


def test_finished_parts_are_kept_and_damaged_ones_made_again(tmp_path: Path) -> None:
    store, words = Store(tmp_path), words_stage(*"abcdef")
    stage = echo_stage(words)
    manifest, _ = run(store, words, stage)
    directory = store.table_directory(manifest.ref)
    (directory / "manifest.json").unlink()
    files = [part.files["rows"].name for part in manifest.parts]
    kept = (directory / files[0]).stat().st_mtime_ns
    with (directory / files[1]).open("ab") as file:
        file.write(b"x")
    (directory / "part-00002.json").unlink()
    again, reused = run(store, words, stage)
    assert not reused
    assert again.content == manifest.content
    assert (directory / files[0]).stat().st_mtime_ns == kept
    named = {record.name for part in again.parts for record in part.stored}
    assert {path.name for path in directory.glob("*.parquet")} == named


def test_a_finished_part_without_rows_is_kept(tmp_path: Path) -> None:
    store, none = Store(tmp_path), words_stage()
    manifest, _ = run(store, none, echo_stage(none))
    directory = store.table_directory(manifest.ref)
    (directory / "manifest.json").unlink()
    made = part_marker(directory, 0).stat().st_mtime_ns
    again, reused = run(store, none, echo_stage(none))
    assert (reused, again.content, again.work) == (False, manifest.content, None)
    assert part_marker(directory, 0).stat().st_mtime_ns == made


def test_a_forced_remake_stands_for_the_key_from_then_on(tmp_path: Path) -> None:
    store, words = Store(tmp_path), words_stage(*"abc")
    stage = echo_stage(words)
    first, _ = run(store, words, stage)
    loom = runner(store)
    remade, reused = loom.run(stage, list(first.inputs), [], again="all")
    assert not reused
    assert (remade.remake, remade.content) == (1, first.content)
    assert remade.key != first.key
    assert loom.run(stage, list(first.inputs), []) == (remade, True)
    twice, _ = loom.run(stage, list(first.inputs), [], again="all")
    assert twice.remake == 2
    assert loom.run(stage, list(first.inputs), []) == (twice, True)
    assert store.manifest(first.ref) == first


def test_a_replay_makes_only_the_parts_with_quarantined_rows_again(tmp_path: Path) -> None:
    store, words = Store(tmp_path), words_stage(*"abcdef")
    faults = tmp_path / "faults"
    faults.write_text("c e")
    stage = Stage(
        name="fragile",
        function=fragile,
        arguments=Words(words=(), where=faults),
        contract=words.contract,
        inputs=(words,),
        part_rows=2,
    )
    first, _ = run(store, words, stage)
    assert first.quarantined_by == {"fault": 2}
    faults.write_text("e")  # what made the row fail is mended, outside of all that enters the key
    loom = runner(store)
    replayed, reused = loom.run(stage, list(first.inputs), [], again="quarantined")
    assert not reused
    assert store.scan(replayed.ref).collect()["word"].to_list() == list("abcdf")
    assert replayed.quarantined_by == {"fault": 1}
    assert replayed.parts[0] == first.parts[0]
    assert replayed.parts[1].files["rows"].name != first.parts[1].files["rows"].name
    assert loom.run(stage, list(first.inputs), []) == (replayed, True)
    faults.write_text("")
    whole, _ = loom.run(stage, list(first.inputs), [], again="quarantined")
    assert whole.count("rows") == 6
    assert loom.run(stage, list(first.inputs), [], again="quarantined") == (whole, True)


def fragile(rows: pl.DataFrame, arguments: Words) -> Output:
    """Put aside the words that a file names."""
    faults = arguments.where.read_text().split()
    aside = [quarantined(row, "fault", "named") for row in rows.iter_rows(named=True) if row["word"] in faults]
    return Output(rows=rows.filter(~pl.col("word").is_in(faults)), quarantined=quarantined_frame(aside))


def test_a_writer_that_was_replaced_commits_nothing(tmp_path: Path) -> None:
    store, words = Store(tmp_path), words_stage("a")
    manifest, _ = run(store, words)
    job = PartJob(
        system="toy",
        stage="words",
        function=words.function,
        arguments=words.arguments,
        contract=words.contract,
        directory=store.table_directory(manifest.ref),
        writer="another",
        index=0,
        start=0,
        stop=0,
        inputs=None,
        sides=(),
    )
    before = sorted(path.name for path in job.directory.iterdir())
    with pytest.raises(StoreError, match="is finished, or its build has ended"):
        run_part(job)
    assert sorted(path.name for path in job.directory.iterdir()) == before


def test_empty_input_makes_an_empty_table_without_a_model(tmp_path: Path) -> None:
    words = words_stage("a")
    none = Stage(name="none", function=lose, arguments=words.arguments, contract=words.contract, inputs=(words,))
    missing_model = SCRIPTED.model_copy(update={"engine": "scripted", "options": {"poison": "a"}})
    manifest, _ = run(Store(tmp_path), words, none, echo_stage(words, model=missing_model))
    assert manifest.count("rows") == 0
    assert Store(tmp_path).scan(manifest.ref).collect().columns == ["row_id", "parents", "word", "echo"]


def lose(rows: pl.DataFrame, arguments: object) -> Output:  # noqa: ARG001
    return Output(rows=rows.clear(), attempts=0)


@nl.step(makes={"word": pl.String}, part_rows=2)
def alone_only(rows: pl.DataFrame) -> pl.DataFrame:
    if rows.height > 1:
        raise ValueError("two at once")
    return rows


@nl.step(makes={"word": pl.String})
def nameless(rows: pl.DataFrame) -> nl.Output:
    return nl.Output(rows=rows.select("word"))


def test_a_part_that_fails_though_none_of_its_rows_does_fails_the_stage(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"failed in part 0, though none of its rows fails alone: .*two at once"):
        made("toy", [alone_only(words_stage("a", "b"))], Store(tmp_path))


def test_rows_that_do_not_say_what_they_came_from_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="do not say what they came from: keep the column `row_id`"):
        made("toy", [nameless(words_stage("a"))], Store(tmp_path))


def test_a_check_that_cannot_be_made_puts_no_row_into_quarantine(tmp_path: Path) -> None:
    check = nl.Check(
        expectation="expect_column_values_to_match_regex",
        arguments={"column": "word", "regex": "("},
        on_fail="quarantine",
    )
    contract = replace(WORDS, checks=(check,))
    with pytest.raises(CheckError, match="could not be run"):
        made("toy", [replace(words_stage("a"), contract=contract)], Store(tmp_path))
