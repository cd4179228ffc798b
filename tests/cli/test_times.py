"""Times in tables of `nl.table`: those that Python has are taken, others are named."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import polars as pl
import pytest

import normloom as nl
from normloom.core.errors import SourceError, UsageError
from normloom.store.store import Store
from normloom.testing.inline import made


def counted(last: int, dtype: pl.DataType) -> pl.DataFrame:
    """Return a column of times, of which the last is given as Polars counts it."""
    return pl.DataFrame({"a": pl.Series([0, last], dtype=pl.Int64).cast(dtype)})


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (counted(2_932_897, pl.Date()), "column 'a' holds a date outside the years 1 to 9999 (record 1): make it null"),
        (counted(10**9, pl.Date()), "column 'a' holds a date outside the years 1 to 9999 (record 1)"),
        (counted(-62_135_596_800_001, pl.Datetime("ms")), "column 'a' holds a date outside the years 1 to 9999"),
        (counted(2**62, pl.Datetime("us")).select(pl.struct("a")), "column 'a.a' holds a date outside the years"),
        (
            counted(2**62, pl.Datetime("us")).select(pl.col("a").implode()),
            "column 'a[]' holds a date outside the years",
        ),
        (
            counted(253_402_300_799_000, pl.Datetime("ms", "Asia/Tokyo")),
            "a date is outside the years 1 to 9999 (date v",
        ),
        (counted(2**62, pl.Duration("ms")), "column 'a' holds a duration that is too long (record 1)"),
    ],
)
def test_a_time_that_python_does_not_have_is_refused(data: pl.DataFrame, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        nl.table(data)
    assert sentence in str(caught.value)


def test_the_first_and_the_last_times_of_python_are_taken() -> None:
    for dtype, ends in {
        pl.Date(): (-719_162, 2_932_896),
        pl.Datetime("ms"): (-62_135_596_800_000, 253_402_300_799_999),
        pl.Datetime("us"): (-62_135_596_800_000_000, 253_402_300_799_999_999),
        pl.Datetime("ns"): (-(2**63) + 1, 2**63 - 1),
        pl.Duration("ms"): (-999_999_999 * 86_400_000, 999_999_999 * 86_400_000),
        pl.Duration("us"): (-(2**63) + 1, 2**63 - 1),
    }.items():
        for end in ends:
            assert nl.table(counted(end, dtype)).name == "table"


def test_what_a_file_holds_and_a_table_cannot_is_named_with_the_file(tmp_path: Path) -> None:
    far, periods = tmp_path / "far.parquet", tmp_path / "periods.parquet"
    counted(10**9, pl.Date()).write_parquet(far)
    pd.DataFrame({"a": pd.period_range("2026-01", periods=1, freq="M")}).to_parquet(periods)
    for path, holds in ((far, "a date outside the years 1 to 9999"), (periods, "periods of pandas")):
        with pytest.raises(SourceError, match=f"{path}: column 'a' holds {holds}"):
            made("mine", [nl.table(path)], Store(tmp_path / "store"))
