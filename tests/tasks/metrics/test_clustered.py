"""Figures with intervals that resample clusters, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from normloom.tasks.metrics.clustered import clustered, clustered_share, macro_f1, ratio

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


@given(pairs=PAIRS)
def test_macro_f1_is_that_of_scikit_learn(pairs: list[tuple[bool, bool]]) -> None:
    truth, said = map(np.array, zip(*pairs, strict=True))
    sums = np.array([[(truth & said).sum(), (~truth & said).sum(), (truth & ~said).sum(), (~truth & ~said).sum()]])
    expected = f1_score(truth, said, average="macro", labels=[True, False], zero_division=0)
    assert macro_f1(sums.astype(float))[0] == pytest.approx(expected)


def test_a_share_of_rows_is_over_all_of_them_and_its_interval_over_clusters() -> None:
    alike = pl.DataFrame({"meme": [cluster for cluster in range(40) for _ in range(10)]})
    alike = alike.with_columns(held=pl.col("meme") % 2 == 0)  # ten rows that say the same are one piece of evidence
    figure = clustered_share(alike, pl.col("held"), cluster="meme", what="memes")
    assert (figure.value, figure.rows) == (0.5, 400)
    assert figure.low is not None
    assert figure.high is not None
    normal = 1.96 * np.sqrt(0.25 / 40)  # of 40 independent draws; of 400 it would be a third of that
    assert figure.high - figure.low == pytest.approx(2 * normal, rel=0.1)


def test_clusters_that_agree_leave_no_doubt_and_few_say_nothing() -> None:
    counts = np.tile([3.0, 4.0], (6, 1))
    figure = clustered(counts, ratio, rows=24, what="memes")
    assert (figure.value, figure.low, figure.high) == (0.75, 0.75, 0.75)
    assert clustered(counts[:4], ratio, rows=16, what="memes").undefined == "fewer than 5 memes"
    assert clustered(np.zeros((6, 2)), ratio, rows=0, what="memes").undefined == "nothing to divide by"
