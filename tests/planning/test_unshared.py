"""Which files of two tables need to be read to compare them, against a look at all of their rows."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normloom.planning.unshared import AFTER, Checked, Unshared, alike, unshared, with_checksums

ROWS = {"a": ["a1", "a2"], "b": ["b1"], "c": ["c1", "c2"], "d": ["d1"], "empty": [], "other a": ["a2", "a1"]}
SOME = st.lists(st.sampled_from(sorted(ROWS)), min_size=1, max_size=7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files")
    for name, ids in ROWS.items():
        pl.DataFrame({"row_id": ids}, schema={"row_id": pl.String}).write_parquet(path / name)
    return path


def table(folder: Path, names: list[str]) -> list[Checked]:
    """Return a table of files; their names are their checksums."""
    files = tuple((folder / name, len(ROWS[name])) for name in names)
    return with_checksums(files, {path: path.name for path, _ in files})


def names_of(one: Unshared) -> list[str]:
    return [path.name for path, _ in one.files]


@given(before=SOME, now=SOME)
def test_what_is_left_out_are_the_same_files_in_the_same_order(folder: Path, before: list[str], now: list[str]) -> None:
    pair = unshared(table(folder, before), table(folder, now))
    shared = []
    for names, one in zip((before, now), pair, strict=True):
        passed, left = list[str](), list(zip(names_of(one), one.after, strict=True))
        for name in names:
            if left and left[0] == (name, len(passed)):
                left.pop(0)
            elif ROWS[name]:
                passed.append(name)
        assert not left
        assert one.rows("row_id").rows() == [
            (row, after) for name, after in zip(names_of(one), one.after, strict=True) for row in ROWS[name]
        ]
        shared.append(passed)
    assert shared[0] == shared[1]
    if before == now and len({*before}) == len(before):
        assert not pair[0].files


def test_a_file_that_another_passed_is_read(folder: Path) -> None:
    one, other = unshared(table(folder, ["a", "b", "c"]), table(folder, ["b", "a", "c"]))
    assert (names_of(one), names_of(other)) == (["a"], ["a"])
    assert (one.after, other.after) == ((0,), (1,))
    assert one.rows("row_id")[AFTER].dtype == other.rows("row_id")[AFTER].dtype


def test_a_file_that_a_table_has_twice_stands_for_one_only(folder: Path) -> None:
    one, other = unshared(table(folder, ["a", "b", "a"]), table(folder, ["a", "b"]))
    assert (names_of(one), names_of(other)) == (["a"], [])
    assert one.after == (2,)
    assert other.rows("row_id").schema == one.rows("row_id").schema


def test_a_file_whose_checksum_is_unknown_is_read(folder: Path) -> None:
    files = ((folder / "a", 2),)
    one, other = unshared(with_checksums(files, {}), with_checksums(files, {}))
    assert names_of(one) == names_of(other) == ["a"]


@given(one=st.lists(st.sampled_from("ab")), other=st.lists(st.sampled_from("ab")))
def test_what_is_alike_at_start_and_end_is_as_much_as_can_be_and_never_counted_twice(
    one: list[str], other: list[str]
) -> None:
    head, tail = alike(*(pl.Series(some, dtype=pl.String) for some in (one, other)))
    rest, others = one[head:], other[head:]
    assert one[:head] == other[:head]
    assert rest[:1] != others[:1] or not (rest and others)
    assert tail <= min(len(rest), len(others))
    assert rest[len(rest) - tail :] == others[len(others) - tail :]
    between = rest[: len(rest) - tail], others[: len(others) - tail]
    assert not all(between) or between[0][-1] != between[1][-1]
