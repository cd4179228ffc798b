from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from hand_made import ANY, LABEL_IDS, TAXONOMIES, carry_out
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from normloom.schemas import tables
from normloom.tasks.release.measure import agreement, coverage, macro_recall


def labelled(*rows: tuple[list[str] | None, list[float | None]], delta: float = 0.5) -> pl.DataFrame:
    """Prompts of reference labels and the probability of each label."""
    made = [
        {
            "reference": reference,
            "labels": [
                {"dimension": label.partition("/")[0], "label": label, "probability": value}
                for label, value in zip(LABEL_IDS, values, strict=True)
                if (value or 0) >= delta
            ],
            "probabilities": values,
        }
        for reference, values in rows
    ]
    schema = {"reference": tables.TEXTS, "labels": tables.LABELS, "probabilities": pl.List(pl.Float32)}
    return pl.DataFrame(made, schema=schema)


def measured(rows: pl.DataFrame) -> dict[tuple[str, str], dict[str, Any]]:
    made = carry_out(agreement(ANY, taxonomies=TAXONOMIES), rows).rows
    return {(row["dimension"], row["measure"]): row for row in made.iter_rows(named=True)}


def shown(row: dict[str, Any]) -> tuple[float | None, float | None, int]:
    return row["value"], row["prior"], row["rows"]


BY_HAND: Sequence[tuple[list[str] | None, list[float | None]]] = (
    (["safety/theft"], [0.9, 0.1, 0.1, 0.2, 0.1]),  # best and only: theft
    (["safety/theft"], [0.6, 0.8, 0.1, 0.2, 0.1]),  # best: drugs; kept: theft, drugs
    (["safety/theft", "safety/fraud"], [0.1, 0.2, 0.4, 0.2, 0.1]),  # best: fraud; kept: none
    (["safety/drugs"], [0.7, 0.3, 0.1, 0.2, 0.1]),  # best: theft
    ([], [0.1, 0.1, 0.9, 0.2, 0.1]),  # no reference; kept: fraud
    (None, [0.1, 0.1, 0.1, 0.2, 0.1]),
)


def test_agreement_by_hand() -> None:
    # Probabilities of theft, drugs, fraud (safety), wealth, wisdom (value); each prompt comes twice.
    found = measured(labelled(*BY_HAND, *BY_HAND))
    # top1: right for prompts 1 and 3 of 4; theft, the most frequent, is right for 3 of 4.
    assert shown(found["safety", "top1"]) == pytest.approx((2 / 4, 3 / 4, 8))
    # Found: theft 1 of 3, drugs 0 of 1, fraud 1 of 1; always naming theft finds 1 of 3 labels.
    assert shown(found["safety", "macro_recall"]) == pytest.approx(((1 / 3 + 0 + 1) / 3, 1 / 3, 8))
    # Kept 5 (theft, theft, drugs, theft, fraud), 2 of them right; theft for all 6 prompts is right 3 times.
    assert shown(found["safety", "precision"]) == pytest.approx((2 / 5, 3 / 6, 10))
    # 5 reference labels, of which 2 are kept and 3 are theft.
    assert shown(found["safety", "recall"]) == pytest.approx((2 / 5, 3 / 5, 10))
    # Wilson's interval of 4 in 10, by statsmodels.
    for measure in ("precision", "recall"):
        row = found["safety", measure]
        assert (row["low"], row["high"]) == pytest.approx(proportion_confint(4, 10, method="wilson"))
    assert (found["safety", "macro_recall"]["low"], found["safety", "top1"]["prompts"]) == (None, 8)
    assert shown(found["value", "top1"]) == (None, None, 0)
    assert found["value", "top1"]["undefined"] == "no prompt has a reference label"
    assert len(found) == 8


def test_fewer_than_five_labels_have_no_share() -> None:
    found = measured(labelled(*BY_HAND[:3]))
    assert found["safety", "precision"]["undefined"] == "fewer than 5 kept labels"
    assert found["safety", "recall"]["undefined"] == "fewer than 5 reference labels"
    assert (
        found["safety", "top1"]["undefined"] == found["safety", "macro_recall"]["undefined"] == "fewer than 5 prompts"
    )
    assert all(row["value"] is row["low"] is row["high"] is None for row in found.values())


def test_a_dimension_in_which_nothing_is_kept_has_no_precision() -> None:
    wealth: tuple[list[str] | None, list[float | None]] = (["value/wealth"], [0.1, 0.1, 0.1, 0.2, 0.4])
    found = measured(labelled(*[wealth] * 5))
    assert shown(found["value", "precision"]) == (None, 1.0, 0)
    assert found["value", "precision"]["undefined"] == "no kept labels"
    assert shown(found["value", "recall"]) == (0.0, 1.0, 5)
    assert found["value", "recall"]["high"] == pytest.approx(0.4345, abs=5e-5)  # none of five is no proof of none
    assert shown(found["value", "macro_recall"]) == (0.0, 1.0, 5)


def test_labels_that_were_not_asked_are_never_the_best() -> None:
    found = measured(labelled(*[(["value/wisdom"], [None, None, 0.01, None, 0.001])] * 5))
    assert found["value", "top1"]["value"] == 1.0


def test_a_reference_label_of_another_taxonomy_does_not_count() -> None:
    found = measured(labelled((["cultural/dance"], [0.9, 0.1, 0.1, 0.1, 0.1])))
    assert shown(found["safety", "recall"]) == (None, None, 0)


@given(st.integers(1, 12), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_macro_recall_is_one_for_the_truth_and_one_over_the_labels_for_one_of_them(
    prompts: int, labels: int, seed: int
) -> None:
    truth = np.random.default_rng(seed).random((prompts, labels)) < 0.4
    truth[0, 0] = True
    one = np.zeros_like(truth)
    one[:, 0] = True
    assert macro_recall(truth, truth) == 1
    assert macro_recall(truth, one) == pytest.approx(1 / truth.any(axis=0).sum())


def test_coverage_counts_prompts_before_and_after_and_what_quotas_lack() -> None:
    rows = [
        ("source", ["safety/theft", "value/wealth"]),
        ("source", ["safety/theft"]),
        ("expansion", ["safety/drugs"]),
        ("expansion", ["safety/drugs"]),
        ("expansion", ["value/wealth"]),
    ]
    labels = [[{"dimension": "", "label": label, "probability": None} for label in names] for _, names in rows]
    unique = pl.DataFrame(
        {"origin": [origin for origin, _ in rows], "labels": labels},
        schema={"origin": pl.String, "labels": tables.LABELS},
    )
    gaps = pl.DataFrame({"label": ["safety/drugs", "safety/fraud", "value/wealth"], "quota": [2, 2, 3]})
    made = carry_out(coverage(ANY, ANY, taxonomies=TAXONOMIES), unique, gaps)
    assert made.rows.select("dimension", "label", "before", "quota", "added", "missing").rows() == [
        ("safety", "safety/theft", 2, 0, 0, 0),
        ("safety", "safety/drugs", 0, 2, 2, 0),
        ("safety", "safety/fraud", 0, 2, 0, 2),
        ("value", "value/wealth", 1, 3, 1, 2),
        ("value", "value/wisdom", 0, 0, 0, 0),
    ]
