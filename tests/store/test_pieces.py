from __future__ import annotations

import random

import polars as pl

from normloom.store.pieces import LARGE, pieces_of


def table(ids: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"row_id": ids, "text": [f"text of {one}" for one in ids]})


def test_a_large_table_shares_all_pieces_with_one_that_has_a_few_more_rows() -> None:
    draw = random.Random(3)
    ids = [f"{draw.getrandbits(128):032x}" for _ in range(LARGE + 4_000)]
    before = pieces_of(table(ids))
    assert sum(rows for rows, _ in before) == len(ids)
    assert len(before) == 1 + sum(int(one[-3:], 16) < 4 for one in ids[:-1])
    after = pieces_of(table(["a" * 32, *ids[:9_000], "b" * 32, *ids[9_000:]]))
    assert len(set(before) - set(after)) == 2
    changed = table(ids).with_columns(text=pl.when(pl.int_range(pl.len()) == 5_000).then(pl.lit("x")).otherwise("text"))
    assert len(set(before) - set(pieces_of(changed))) == 1


def test_a_small_table_has_none() -> None:
    assert pieces_of(table([f"{number:032x}" for number in range(LARGE)])) == ()
