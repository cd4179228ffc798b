"""Whose a side row is: found by hash, and the same as a join of the ids finds."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from normloom.workers.parts.owners import Owners

IDS = st.sampled_from(["a", "b", "c", "d", "", "0123456789abcdef0123456789abcdef"])


@given(st.lists(st.tuples(IDS, st.integers(0, 3)), max_size=8), st.lists(st.none() | IDS, max_size=8))
def test_owners_are_those_of_a_join(rows: list[tuple[str, int]], keys: list[str | None]) -> None:
    known = pl.DataFrame(rows, schema={"key": pl.String, "part": pl.Int32}, orient="row")
    named = pl.DataFrame({"key": keys, "file": range(len(keys))}, schema={"key": pl.String, "file": pl.UInt32})
    found = Owners(known["key"], known["part"].to_numpy().astype(np.int32)).find(named)
    assert sorted(found.rows(), key=repr) == sorted(named.join(known, on="key", how="left").rows(), key=repr)
