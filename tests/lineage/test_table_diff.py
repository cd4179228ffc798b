from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normloom.core.errors import StoreError
from normloom.lineage.table_diff import TableDiff, diff_tables

LABELS = pl.List(pl.Struct({"label": pl.String, "probability": pl.Float32}))


def written(directory: Path, *parts: pl.DataFrame) -> list[Path]:
    directory.mkdir()
    paths = [directory / f"rows-{number}.parquet" for number in range(len(parts))]
    for part, path in zip(parts, paths, strict=True):
        part.write_parquet(path)
    return paths


def compared(before: pl.DataFrame, after: pl.DataFrame, where: Path, examples: int = 3) -> TableDiff:
    return diff_tables(written(where / "before", before), written(where / "after", after), examples=examples)


def test_counts_rows_and_columns_over_parts_that_are_cut_otherwise(tmp_path: Path) -> None:
    before = pl.DataFrame({"row_id": list("abcd"), "text": list("wxyz"), "n": [1, 2, 3, 4]})
    after = pl.DataFrame({"row_id": list("edcb"), "text": ["new", "z", "Y", "X"], "n": [9, 4, 3, 0]})
    found = diff_tables(
        written(tmp_path / "before", before[:1], before[1:1], before[1:]),
        written(tmp_path / "after", after[:2], after[2:]),
    )
    assert (found.added, found.removed, found.changed) == (1, 1, 2)
    assert list(found.changed_in.items()) == [("text", 2), ("n", 1)]
    assert [(row.row_id, dict(row.values)) for row in found.examples] == [
        ("b", {"text": ("x", "X"), "n": (2, 0)}),
        ("c", {"text": ("y", "Y")}),
    ]


def test_shows_no_more_rows_than_are_asked_for(tmp_path: Path) -> None:
    before = pl.DataFrame({"row_id": list("abcd"), "n": [1, 2, 3, 4]})
    found = compared(before, before.with_columns(n=pl.col("n") + 1), tmp_path, examples=2)
    assert [row.row_id for row in found.examples] == ["a", "b"]
    assert diff_tables([*(tmp_path / "before").iterdir()], [*(tmp_path / "after").iterdir()], examples=0).examples == []


def test_columns_that_one_table_lacks_or_has_of_another_type_are_named_and_not_compared(tmp_path: Path) -> None:
    before = pl.DataFrame({"row_id": ["a"], "same": [1], "old": [1], "typed": [1], 'odd "name"': [1]})
    after = pl.DataFrame({"row_id": ["a"], "same": [1], "new": [2], "typed": ["2"], 'odd "name"': [2]})
    found = compared(before, after, tmp_path)
    assert (found.columns_added, found.columns_removed) == (["new"], ["old"])
    assert found.retyped == {"typed": ("BIGINT", "VARCHAR")}
    assert (found.changed, found.changed_in) == (1, {'odd "name"': 1})


def test_tables_without_a_column_in_common_still_have_rows(tmp_path: Path) -> None:
    found = compared(
        pl.DataFrame({"row_id": ["a", "b"], "x": [1, 2]}), pl.DataFrame({"row_id": ["b"], "y": [1]}), tmp_path
    )
    assert (found.added, found.removed, found.changed, found.examples) == (0, 1, 0, [])


@pytest.mark.parametrize(
    ("dtype", "before", "after", "differs"),
    [
        (pl.List(pl.Int8), None, [], True),
        (pl.List(pl.Int8), [], [None], True),
        (pl.List(pl.Int8), [1, 2], [2, 1], True),
        (pl.String, None, "", True),
        (pl.String, None, None, False),
        (pl.Float32, math.nan, math.nan, False),
        (pl.List(pl.Float32), [math.nan, None], [math.nan, None], False),
        (pl.Float32, math.nan, None, True),
        (LABELS, [{"label": "x", "probability": None}], [{"label": "x", "probability": None}], False),
        (LABELS, [{"label": "x", "probability": None}], [{"label": "x", "probability": 0.0}], True),
        (pl.UInt64, 2**64 - 1, 2**64 - 2, True),
    ],
)
def test_values_are_compared_exactly(
    tmp_path: Path, dtype: pl.DataType, before: Any, after: Any, differs: bool
) -> None:
    sides = [
        pl.DataFrame({"row_id": ["a"], "value": [value], "moved": [moved]}, schema_overrides={"value": dtype})
        for moved, value in enumerate((before, after))
    ]
    found = compared(sides[0], sides[1], tmp_path)
    assert ("value" in found.changed_in) is differs
    assert ("value" in found.examples[0].values) is differs


def test_a_row_id_that_stands_for_two_rows_is_refused(tmp_path: Path) -> None:
    once, twice = (pl.DataFrame({"row_id": ids, "n": range(len(ids))}) for ids in (["a"], ["a", "a"]))
    with pytest.raises(StoreError, match=r"before and .*after cannot be compared: a row id occurs twice"):
        compared(once, twice, tmp_path)


rows = st.dictionaries(
    st.integers(0, 9).map(str),
    st.fixed_dictionaries(
        {"text": st.sampled_from(["", "x", None]), "many": st.none() | st.lists(st.sampled_from([0, 1]), max_size=2)}
    ),
)
SCHEMA: dict[str, Any] = {"row_id": pl.String, "text": pl.String, "many": pl.List(pl.Int64)}


def framed(table: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{"row_id": name, **values} for name, values in table.items()], schema=SCHEMA)


def parted(frame: pl.DataFrame, cuts: Sequence[int]) -> list[pl.DataFrame]:
    places = [0, *sorted(min(cut, frame.height) for cut in cuts), frame.height]
    return [frame[start:stop] for start, stop in pairwise(places)]


@settings(max_examples=40)
@given(before=rows, after=rows, cuts=st.lists(st.integers(0, 9), max_size=2))
def test_agrees_with_a_comparison_row_by_row(
    before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]], cuts: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        found = diff_tables(
            written(Path(name) / "before", *parted(framed(before), cuts)),
            written(Path(name) / "after", framed(after)),
            examples=20,
        )
    both = sorted(before.keys() & after.keys())
    expected = {
        row: changed
        for row in both
        if (
            changed := {c: (before[row][c], after[row][c]) for c in ("text", "many") if before[row][c] != after[row][c]}
        )
    }
    assert (found.added, found.removed) == (len(after.keys() - before), len(before.keys() - after))
    assert found.changed == len(expected)
    assert {row.row_id: dict(row.values) for row in found.examples} == expected
    assert found.changed_in == {
        column: count for column in ("text", "many") if (count := sum(column in row for row in expected.values()))
    }
