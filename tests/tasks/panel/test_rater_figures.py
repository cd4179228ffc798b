"""Figures of models as raters: a table worked out by hand, weights, domains, and raters without ratings."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from hand_made import ANY, carry_out

from normloom.tasks.panel.rater_figures import rater_figures

Found = dict[tuple[str, str, str, str, str], tuple[float | None, int, str | None]]

RATED: dict[str, Any] = {
    "item_id": pl.String,
    "rater": pl.String,
    "rater_gender": pl.String,
    "rater_race": pl.String,
    "rater_age": pl.String,
    "group": pl.String,
    "labels": pl.List(pl.String),
    "safety_gold": pl.String,
    "answer": pl.String,
    "rating": pl.Float64,
    "p_no": pl.Float64,
    "p_unsure": pl.Float64,
    "p_yes": pl.Float64,
    "weight": pl.Int64,
    "origin": pl.String,
}
GOLD = {"a": "No", "b": "Yes"}


def rated(*rows: tuple[str, str, str, float, int], origin: str = "source") -> pl.DataFrame:
    """Ratings of rater, item, gender, rating and weight: No up to 0.5 and Yes from there on.

    Each item comes five times, as fewer have no figure.
    """
    made = [
        {
            "item_id": f"{item}{copy}",
            "rater": rater,
            "rater_gender": gender,
            "rater_race": None,
            "rater_age": None,
            "group": gender,
            "labels": ["safety/theft"] if item == "a" else [],
            "safety_gold": GOLD.get(item),
            "answer": "Yes" if rating >= 0.5 else "No",
            "rating": rating,
            "p_no": 1 - rating,
            "p_unsure": 0.0,
            "p_yes": rating,
            "weight": weight,
            "origin": origin,
        }
        for copy in range(5)
        for rater, item, gender, rating, weight in rows
    ]
    return pl.DataFrame(made, schema=RATED)


def asked(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("group", "item_id", "weight").unique(["group", "item_id"], maintain_order=True)


def measured(rows: pl.DataFrame, requests: pl.DataFrame | None = None, *raters: str) -> Found:
    stage = rater_figures(ANY, ANY, raters=raters, axes=("gender",))
    made = carry_out(stage, rows, asked(rows) if requests is None else requests).rows
    key = ("of", "metric", "axis", "slice_by", "slice")
    return {row[:5]: row[5:] for row in made.select(*key, "value", "rows", "undefined").iter_rows()}


BY_HAND = rated(
    ("m", "a", "Man", 0.2, 3),
    ("m", "a", "Woman", 0.6, 1),
    ("m", "b", "Man", 0.9, 3),
    ("m", "b", "Woman", 0.9, 1),
    ("n", "a", "Man", 0.1, 3),
    ("n", "a", "Woman", 0.1, 1),
    ("n", "b", "Man", 0.4, 3),
)


def test_rater_figures_by_hand() -> None:
    found = measured(BY_HAND)
    # m: item a means 0.2 and 0.6, deviation 0.2; item b none.
    assert found["m", "ds", "gender", "overall", "all"] == pytest.approx((0.1, 10, None))
    assert found["m", "ds", "mean", "overall", "all"] == pytest.approx((0.1, 10, None))
    # From 0.5 on: men 3 of 6, women 2 of 2; false-positive rates 0 and 1.
    assert found["m", "dpd", "gender", "overall", "all"] == pytest.approx((0.5, 40, None))
    assert found["m", "eod", "gender", "overall", "all"] == (1.0, 40, None)
    assert found["m", "coverage", "", "overall", "all"] == (1.0, 40, None)
    assert found["n", "coverage", "", "overall", "all"] == pytest.approx((7 / 8, 40, None))
    assert found["n", "eod", "gender", "overall", "all"][2] == "no item that group 'Woman' rated is unsafe in truth"


def test_the_panel_rates_each_conversation_once_for_each_group() -> None:
    found = measured(BY_HAND)
    # Four (conversation, group) pairs, of which n did not rate one; each five times.
    assert found["panel", "icc2_1", "", "overall", "all"][1] == 15
    assert found["panel", "icc_left_out", "", "overall", "all"] == pytest.approx((1 / 4, 20, None))
    shared = np.array([[0.2, 0.1], [0.6, 0.1], [0.9, 0.4]])
    expected = np.corrcoef(shared.T)[0, 1]
    assert found["panel", "correlation", "", "overall", "all"] == pytest.approx((expected, 1, None))
    # Answers (No, No), (Yes, No), (Yes, No), each five times: o00 = 10, o02 = o20 = 10, n0 = 20, n2 = 10, n = 30:
    # alpha = 1 - 29 * 10 / (20 * 10).
    assert found["panel", "alpha", "", "overall", "all"] == pytest.approx((-0.45, 15, None))
    assert found["panel", "icc2_1", "", "rater_gender", "Woman"][1] == 5
    assert found["panel", "alpha", "", "domain", "None"][1] == 5
    assert ("panel", "ds", "gender", "overall", "all") not in found


def test_domains_and_conversations_without_a_label() -> None:
    found = measured(BY_HAND)
    assert found["m", "ds", "gender", "domain", "safety/theft"] == pytest.approx((0.2, 5, None))
    assert found["m", "ds", "gender", "domain", "None"] == (0.0, 5, None)
    assert found["m", "eod", "gender", "domain", "None"][2] == "no item that group 'Man' rated is safe in truth"


def test_weights_give_the_figures_of_all_joined_source_rows() -> None:
    rng = np.random.default_rng(7)
    genders = ("Man", "Woman", "Other")
    rows = rated(
        *(
            ("m", item, gender, round(rng.random(), 3), int(rng.integers(1, 9)))
            for item in (*GOLD, "c", "d")
            for gender in genders
        )
    ).with_columns(
        safety_gold=pl.when(pl.col("item_id").str.contains("^[ac]")).then(pl.lit("No")).otherwise(pl.lit("Yes"))
    )
    joined = rows.select(pl.all().repeat_by("weight").list.explode()).with_columns(weight=pl.lit(1, dtype=pl.Int64))
    requests = asked(rows)
    weighted, repeated = measured(rows, requests), measured(joined, requests)
    for key, (value, count, reason) in weighted.items():
        if key[0] == "m":
            assert repeated[key] == (None if value is None else pytest.approx(value), count, reason)


def test_groups_are_compared_on_the_conversations_of_the_source() -> None:
    drawn = rated(("m", "x", "Man", 0.99, 1), ("m", "y", "Woman", 0.01, 1), origin="expansion")
    with_drawn, without = measured(pl.concat([BY_HAND, drawn])), measured(BY_HAND)
    assert with_drawn["m", "dpd", "gender", "overall", "all"] == without["m", "dpd", "gender", "overall", "all"]
    assert with_drawn["m", "coverage", "", "overall", "all"] == (1.0, 50, None)


def test_a_rater_without_ratings_is_seen() -> None:
    found = measured(BY_HAND, None, "m", "n", "silent")
    assert found["silent", "coverage", "", "overall", "all"] == (0.0, 40, None)
    assert found["silent", "ds", "gender", "overall", "all"][2] == "no item has ratings of two groups"
    assert found["silent", "dpd", "gender", "overall", "all"][2] == "fewer than two groups"


def test_parity_is_not_told_from_few_items_however_often_they_were_rated() -> None:
    four = BY_HAND.filter(pl.col("item_id").is_in(["a0", "a1", "b0", "b1"]))
    found = measured(four)
    assert found["m", "ds", "gender", "overall", "all"][2] == "fewer than 5 items with ratings of two groups"
    assert found["m", "dpd", "gender", "overall", "all"][2] == "group 'Man' rated fewer than 5 items"
    nine = BY_HAND.filter(pl.col("item_id") != "b0")
    reason = measured(nine)["m", "eod", "gender", "overall", "all"][2]
    assert reason == "group 'Man' rated fewer than 5 items that are unsafe in truth"


def test_of_groups_with_equally_few_items_the_same_one_is_named_whatever_the_order_of_rows() -> None:
    eight = BY_HAND.filter(~pl.col("item_id").is_in(["a0", "b0"]))
    key = ("m", "eod", "gender", "overall", "all")
    reasons = {measured(eight.sample(fraction=1, shuffle=True, seed=seed))[key][2] for seed in range(8)}
    assert reasons == {"group 'Man' rated fewer than 5 items that are safe in truth"}


def test_the_threshold_moves_parity_only() -> None:
    stage = rater_figures(ANY, ANY, axes=("gender",), threshold=0.1)
    made = carry_out(stage, BY_HAND, asked(BY_HAND)).rows.filter(pl.col("slice_by") == "overall")
    values = {row[:2]: row[2] for row in made.filter(pl.col("of") == "m").select("metric", "axis", "value").iter_rows()}
    assert values["dpd", "gender"] == 0  # all are rated 0.1 or more
    assert values["ds", "gender"] == pytest.approx(0.1)


def test_a_panel_that_was_asked_nothing_has_no_coverage() -> None:
    rows = rated(("m", "a", "Woman", 0.0, 1))
    told = measured(rows, asked(rows).clear())
    assert told["m", "coverage", "", "overall", "all"] == (None, 0, "nothing was asked")
