"""The equal error rate: by hand, and of published scores of real countermeasures on ASVspoof."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from normloom.tasks.metrics.equal_error_rate import equal_error_rate

SCORES = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=30).filter(
    lambda pairs: len({real for _, real in pairs}) == 2
)


def test_by_hand() -> None:
    # real 1 2 3 4, fake 0 1.5 2.5 -1: at the cut 1.5 one of four real items is refused, one of four fakes accepted
    found = equal_error_rate([1, 2, 3, 4, 0, 1.5, 2.5, -1], [True] * 4 + [False] * 4)
    assert (found.rate, found.cut) == (0.25, 1.5)
    assert found.auc == 13 / 16


def test_apart_and_the_wrong_way_round() -> None:
    apart = equal_error_rate([2, 3, 0, 1], [True, True, False, False])
    assert (apart.rate, apart.cut, apart.auc, apart.is_flipped) == (0, 1, 1, False)
    flipped = equal_error_rate([0, 1, 2, 3], [True, True, False, False])
    assert (flipped.rate, flipped.auc, flipped.is_flipped) == (1, 0, True)


@pytest.mark.parametrize(
    ("scores", "real", "message"),
    [([1.0], [True], "1 real items and 0 fakes"), ([float("nan"), 1.0], [True, False], "1 of 2 scores are not finite")],
)
def test_what_has_no_rate_says_why(scores: list[float], real: list[bool], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        equal_error_rate(scores, real)


@given(pairs=SCORES)
def test_it_is_the_least_difference_over_all_cuts(pairs: list[tuple[int, bool]]) -> None:
    scores, real = (np.array(column) for column in zip(*pairs, strict=True))
    found = equal_error_rate(scores, real)
    reals, fakes = scores[real], scores[~real]
    rates = [
        (Fraction(int((reals <= cut).sum()), len(reals)), Fraction(int((fakes > cut).sum()), len(fakes)))
        for cut in np.unique(scores)
    ]
    refused, accepted = min(rates, key=lambda pair: abs(pair[1] - pair[0]))
    assert found.rate == pytest.approx(float(refused + accepted) / 2)
    assert found.auc == pytest.approx(roc_auc_score(real, scores))


class TestAsvspoof:
    @pytest.fixture(scope="class")
    @classmethod
    def scores(cls, shared_data: Path) -> pl.DataFrame:
        return pl.read_parquet(shared_data / "audio_spoof_scores" / "asvspoof2019_la_eval.parquet")

    def test_all_scores_of_2019(self, scores: pl.DataFrame) -> None:
        real = (scores["key"] == "bonafide").to_numpy()
        assert (len(real), int(real.sum())) == (71_237, 7_355)
        found = equal_error_rate(scores["score"].to_numpy(), real)
        assert round(100 * found.rate, 4) == 5.2208
        assert round(found.auc, 5) == 0.98362
        flipped = equal_error_rate(-scores["score"].to_numpy(), real)
        assert flipped.is_flipped
        assert flipped.rate == pytest.approx(1 - found.rate, abs=1e-4)

    @pytest.mark.parametrize(("attack", "rate"), [("A13", 0.098), ("A07", 0.204), ("A17", 6.251), ("A18", 24.304)])
    def test_by_attack(self, scores: pl.DataFrame, attack: str, rate: float) -> None:
        some = scores.filter((pl.col("key") == "bonafide") | (pl.col("attack_id") == attack))
        found = equal_error_rate(some["score"].to_numpy(), (some["key"] == "bonafide").to_numpy())
        assert round(100 * found.rate, 3) == rate

    @pytest.mark.parametrize(("condition", "rate"), [("mulaw", 23.79), ("lowBitRate", 32.25), ("downsampled", 26.78)])
    def test_by_condition_of_2021(self, shared_data: Path, condition: str, rate: float) -> None:
        scores = pl.read_parquet(shared_data / "audio_spoof_scores" / "asvspoof2021_df_subset.parquet")
        found = equal_error_rate(scores[condition].to_numpy(), (scores["key"] == "bonafide").to_numpy())
        assert round(100 * found.rate, 2) == rate
