"""Parts that are made again are compared with what is stored, as their engines promise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from normloom.core.stage import Stage, published_stage
from normloom.core.table import KINDS, Kind
from normloom.history.builds import BuildLock
from normloom.run.reproduce import Sample, _differences, _differing, _promise, sample
from normloom.steps.graph import stages_of
from normloom.store.parts import content_hash, scan_parts, write_frames, write_part
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, runner, words_stage

WORDS = tuple(f"word {number}" for number in range(7))
FLOW = echo_stage(words_stage(*WORDS), drop=WORDS[3], part_rows=2)


def taken(store: Store, lock: BuildLock, *, flow: Stage = FLOW) -> Sample:
    return sample(stages_of(flow), lock, store=store, runner=runner(store), count=9)


def test_all_parts_come_out_bit_equal_and_the_store_stays_as_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lock = built(store, FLOW, build=build_id(1))
    files = sorted(path for path in tmp_path.rglob("*"))
    found = taken(store, lock)
    assert [(one.stage, one.found, one.same) for one in found.remade] == [
        ("words", "bit-equal", True),
        *[("echo", "bit-equal", True)] * 4,
    ]
    assert {one.promise for one in found.remade} == {"bit-equal"}
    assert sorted(path for path in tmp_path.rglob("*")) == files


def test_parts_of_a_table_cut_after_another_come_out_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path)
    built(store, FLOW, build=build_id(1))
    shorter = echo_stage(words_stage(*WORDS[1:]), drop=WORDS[3], part_rows=2)
    lock = built(store, shorter, build=build_id(2))
    found = taken(store, lock, flow=shorter).remade
    assert len(found) == 5
    assert all(one.same for one in found)


def test_a_part_that_differs_is_named_by_column(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lock = built(store, FLOW, build=build_id(1))
    table = store.current("toy", "echo")
    assert table
    directory, part = store.table_directory(table.ref), table.parts[0]
    frames = {kind: scan_parts(directory, [part], kind).collect() for kind in KINDS}
    frames["rows"] = frames["rows"].with_columns(echo=pl.lit("something else"))
    changed = part.model_copy(update={"files": write_frames(directory, 0, frames, writer="other")})
    write_part(directory, changed, writer="other")
    parts = [changed, *table.parts[1:]]
    store.publish(table.model_copy(update={"parts": parts, "content": content_hash(parts)}).sealed())
    [differing] = [one for one in taken(Store(tmp_path), lock).remade if not one.same]
    assert (differing.stage, differing.part) == ("echo", 0)
    assert differing.found == "rows, column echo: 2 of 2 differ"


def test_tables_of_other_code_or_settings_are_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lock = built(store, FLOW, build=build_id(1))
    found = taken(store, lock, flow=echo_stage(words_stage(*WORDS), copies=2))
    assert [one.stage for one in found.remade] == ["words"]
    assert found.left_out == {"echo": "code, settings or models have changed since; normloom why shows which"}


def test_a_table_that_is_not_of_the_build_is_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lock = built(store, words_stage(*WORDS), build=build_id(1))
    found = taken(store, lock)
    assert found.left_out == {"echo": "has no table that can be read"}
    assert [one.stage for one in found.remade] == ["words"]


def test_a_part_that_cannot_be_made_again_says_why(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lock = built(store, FLOW, build=build_id(1))
    words = store.current("toy", "words")
    assert words
    (store.table_directory(words.ref) / words.parts[0].files["rows"].name).unlink()
    found = taken(Store(tmp_path), lock)
    assert found.left_out == {"words": "has no table that can be read"}
    assert {(one.stage, one.same) for one in found.remade} == {("echo", False)}
    assert all("files of its part 0 are missing" in one.found for one in found.remade)


def test_other_counts_and_columns_are_told() -> None:
    one = pl.DataFrame({"row_id": ["a", "b"]})
    ruled = one.with_columns(rule=pl.lit("r"))
    before: dict[Kind, pl.DataFrame] = {"rows": one, "dropped": one, "quarantined": one}
    after: dict[Kind, pl.DataFrame] = {"rows": one.head(1), "dropped": ruled, "quarantined": one}
    assert list(_differences(before, after, 0.0)) == ["1 rows instead of 2", "columns of dropped differ"]


def test_numbers_may_differ_by_the_tolerance_and_texts_not_at_all() -> None:
    one = pl.Series([[0.1, float("nan")], [1000.0, 2.0]])
    other = pl.Series([[0.1004, float("nan")], [1000.5, 2.0]])
    assert _differing(one, other, 0.0) == 2
    assert _differing(one, other, 1e-3) == 0
    assert _differing(one, other, 1e-4) == 2
    assert _differing(pl.Series(["a", None]), pl.Series(["b", None]), 1.0) == 1


@pytest.mark.parametrize(
    ("tolerance", "promise"), [(None, "nothing"), (0.0, "bit-equal"), (0.01, "equal texts, numbers within 0.01")]
)
def test_what_is_promised_follows_from_the_engine(tolerance: float | None, promise: str) -> None:
    assert _promise(tolerance) == promise


def test_tables_of_others_are_passed_over_and_trainings_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    built(store, words_stage("a"), build=build_id(1), system="other")
    other = store.current("other", "words")
    assert other
    flow = echo_stage(published_stage(other.ref, reader="toy"))
    lock = built(store, flow, build=build_id(2))
    trained = replace(flow, files="adapter", part_rows=None)
    found = sample(stages_of(trained), lock, store=store, runner=runner(store), count=9)
    assert (found.remade, found.left_out) == ([], {"echo": "leaves files; training is not repeated"})
