"""A part is taken over if the rows that it reads are the same; what is made so equals what is made from scratch."""

from __future__ import annotations

import shutil
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.history.removal.gc import idle
from normloom.planning.incremental import bounds_around, cut, regular
from normloom.store.layout import MANIFEST, MARKERS, REUSED
from normloom.store.parts import adopt_parts, committed_part, forget_parts
from normloom.store.reused import reused_records
from normloom.store.store import Store
from normloom.store.verify import repair, verify
from normloom.testing.toy import SCRIPTED, echo_stage, runner, words_stage

WORDS = tuple(f"word {number}" for number in range(10))


def make(store: Store, *words: str, again: bool = False, **arguments: object) -> Manifest:
    read = words_stage(*words)
    made, _ = runner(store).run(read, [], [])
    stage: Stage = echo_stage(read, part_rows=3, **arguments)  # type: ignore[arg-type]  # of Echo
    return runner(store).run(stage, [made.ref], [], again="all" if again else None)[0]


def parts_made(table: Manifest) -> int:
    return table.work.parts if table.work else 0


def rows(store: Store, table: Manifest) -> list[dict[str, object]]:
    return store.scan(table.ref).collect().to_dicts()


def test_a_row_that_is_gone_costs_its_own_part(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = make(store, *WORDS)
    after = make(store, *WORDS[:4], *WORDS[5:])
    assert (len(before.parts), parts_made(before)) == (4, 4)
    assert [(part.start, part.stop) for part in after.parts] == [(0, 3), (3, 5), (5, 8), (8, 9)]
    assert parts_made(after) == 1
    assert rows(store, after) == [row for row in rows(store, before) if row["word"] != WORDS[4]]


def test_rows_at_the_end_cost_the_last_part_and_their_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make(store, *WORDS)
    after = make(store, *WORDS, "one more", "and one", "and another")
    assert [(part.start, part.stop) for part in after.parts] == [(0, 3), (3, 6), (6, 9), (9, 12), (12, 13)]
    assert parts_made(after) == 2


def test_parts_that_are_taken_over_are_linked_and_have_their_records_in_one_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = make(store, *WORDS), make(store, *WORDS, "one more")
    third = make(store, *WORDS[1:], "one more")
    folders = [store.table_directory(table.ref) for table in (first, second, third)]
    assert [sorted(reused_records(folder)) for folder in folders] == [[], [0, 1, 2], [1, 2, 3]]
    assert [len(list(folder.glob(MARKERS))) for folder in folders] == [4, 1, 1]
    assert second.parts[1].places != first.parts[1].places  # its rows are in another file
    assert all(store.holds(folders[1], part) for part in second.parts)
    assert not list(verify(store))
    assert list(store.parts(folders[2]).values()) == third.parts
    for before, after in zip(second.parts[1:], third.parts[1:], strict=True):
        files = [store.table_directory(ref) / before.files["rows"].name for ref in (second.ref, third.ref)]
        assert files[0].samefile(files[1])
        assert after.files == before.files


def test_a_table_that_is_finished_from_its_parts_says_where_their_rows_are(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make(store, *WORDS)
    whole = make(store, *WORDS, "one more")
    (store.table_directory(whole.ref) / MANIFEST).unlink()
    finished = make(store, *WORDS, "one more")
    assert finished.parts == whole.parts
    assert parts_made(finished) == 0


def test_a_build_that_is_killed_before_it_records_what_it_takes_over_has_taken_over_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make(store, *WORDS)
    whole = make(store, *WORDS, "one more")
    folder = store.table_directory(whole.ref)
    for name in (MANIFEST, REUSED):
        (folder / name).unlink()
    assert list(store.parts(folder)) == [3]  # made, not taken over
    finished = make(store, *WORDS, "one more")
    assert finished.parts == whole.parts
    assert parts_made(finished) == 0


def test_parts_that_a_killed_build_took_over_are_not_those_of_a_table_that_is_cut_otherwise(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = make(store, *WORDS), make(store, *WORDS[1:])
    folder = store.table_directory(second.ref)
    (folder / MANIFEST).unlink()
    forget_parts(folder, second.parts[1:2], writer="any")
    assert sorted(store.parts(folder)) == [0, 2, 3]
    again = [part.model_copy(update={"index": 4, "start": 9, "stop": 12}) for part in first.parts[1:2]]
    adopt_parts(store.table_directory(first.ref), folder, again, writer="any")  # the files of what was forgotten
    assert sorted(store.parts(folder)) == [0, 2, 3, 4]
    assert committed_part(folder, 1) is None


@pytest.mark.parametrize("damage", ["cut", "gone", "edited"])
def test_damaged_records_of_parts_that_were_taken_over_are_found_and_made_good(damage: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    make(store, *WORDS)
    second = make(store, *WORDS, "one more")
    path = store.table_directory(second.ref) / REUSED
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else content.replace(b'"rows":3', b'"rows":2'))
    found = list(verify(store))
    assert found
    with idle(store, "toy") as hold:
        repair(store, found, hold)
    remade = make(store, *WORDS, "one more")
    assert remade.content == second.content
    assert not list(verify(store))


def test_other_settings_or_another_model_take_nothing_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make(store, *WORDS)
    assert parts_made(make(store, *WORDS[1:], copies=2)) == 3
    assert parts_made(make(store, *WORDS[1:], model=SCRIPTED.model_copy(update={"model": "other"}))) == 3


def test_a_remake_takes_nothing_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make(store, *WORDS)
    shorter = make(store, *WORDS[1:])
    remade = make(store, *WORDS[1:], again=True)
    assert (parts_made(shorter), parts_made(remade)) == (1, 3)
    assert rows(store, remade) == rows(store, shorter)


def test_a_damaged_part_is_made_and_not_taken_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = make(store, *WORDS)
    file = store.table_directory(before.ref) / before.parts[2].files["rows"].name
    content = bytearray(file.read_bytes())
    content[50] ^= 1
    file.write_bytes(content)
    after = make(Store(tmp_path), *WORDS[1:])
    assert parts_made(after) == 2
    assert [row["word"] for row in rows(Store(tmp_path), after)] == list(WORDS[1:])


@settings(max_examples=25)
@given(first=st.permutations(range(12)), second=st.permutations(range(14)), dropped=st.sets(st.integers(0, 13)))
def test_a_table_made_after_another_has_the_rows_of_one_made_from_scratch(
    first: list[int], second: list[int], dropped: set[int]
) -> None:
    earlier = [f"word {number}" for number in first]
    later = [f"word {number}" for number in second if number not in dropped] or ["word"]
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        make(Store(Path(one)), *earlier)
        after, scratch = make(Store(Path(one)), *later), make(Store(Path(other)), *later)
        assert after.key == scratch.key
        assert rows(Store(Path(one)), after) == rows(Store(Path(other)), scratch)


@given(
    before=st.lists(st.integers(0, 30), unique=True, min_size=1),
    ids=st.lists(st.integers(0, 40), unique=True),
    size=st.integers(1, 6),
)
def test_bounds_cover_all_rows_once_in_parts_that_are_not_too_large(
    before: list[int], ids: list[int], size: int
) -> None:
    usual = regular(len(before), size)
    part = {number: place // size for place, number in enumerate(before)}
    placed = [part.get(number) for number in ids]
    found = cut([(at, len([*run])) for at, run in groupby(placed)], len(usual), size)
    assert cut([(at, 1) for at in placed], len(usual), size) == found
    assert [place for start, stop in found for place in range(start, stop)] == list(range(len(ids)))
    assert all(stop - start <= size for start, stop in found)


def test_without_the_rows_of_the_earlier_table_parts_are_cut_as_usual(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = make(store, *WORDS)
    shutil.rmtree(store.table_directory(before.inputs[0]))
    after = make(Store(tmp_path), *WORDS[1:])
    assert [(part.start, part.stop) for part in after.parts] == [(0, 3), (3, 6), (6, 9)]
    assert [row["word"] for row in rows(store, after)] == list(WORDS[1:])


def test_parts_that_overlap_leave_no_way_to_cut_the_rest(tmp_path: Path) -> None:
    first, second = make(Store(tmp_path), *WORDS).parts[:2]
    assert bounds_around({0: first, 1: second}, 10, 3) == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert bounds_around({0: first, 1: second.model_copy(update={"start": 2})}, 10, 3) is None
