from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from normloom.core.table import TableRef
from normloom.exports.tables import Shown, write


@pytest.mark.parametrize(
    ("heights", "characters", "groups"),
    [([30_000, 30_000, 30_000, 10], 1, [90_000, 10]), ([1, 1, 1], 33 << 20, [2, 1]), ([3], 1, [3])],
    ids=["many small parts", "large rows", "one part"],
)
def test_parts_are_gathered_into_row_groups(
    tmp_path: Path, heights: list[int], characters: int, groups: list[int]
) -> None:
    frames = [pl.DataFrame({"text": [str(number) * characters] * height}) for number, height in enumerate(heights)]
    ref = TableRef(system="toy", stage="publish", key="0" * 64, content="", rows=sum(heights))
    shown = Shown(name="default", ref=ref, schema=frames[0].schema, frames=lambda: iter(frames))
    write(shown, tmp_path, "parquet")
    file = pq.ParquetFile(tmp_path / "data/default/train.parquet")
    assert [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)] == groups
    assert pl.DataFrame(file.read()).equals(pl.concat(frames))
