"""Figures of human raters: a table worked out by hand, and the published numbers of DICES-350."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hand_made import ANY, carry_out

from normloom.tasks.panel.human_figures import METRICS, human_figures

Found = dict[tuple[str, str, str, str], tuple[float | None, int, str | None]]

STAGE = human_figures(ANY, ANY)
LABELS: dict[str, Any] = {"item_id": pl.String, "labels": pl.List(pl.String)}
RATINGS = {
    "item_id": pl.String,
    "rater_id": pl.String,
    "rater_gender": pl.String,
    "rater_race": pl.String,
    "rater_age": pl.String,
    "answer": pl.String,
    "safety_gold": pl.String,
}


def measured(rows: pl.DataFrame, labelled: pl.DataFrame) -> Found:
    made = carry_out(STAGE, rows, labelled).rows
    key = ("metric", "axis", "slice_by", "slice")
    return {row[:4]: row[4:] for row in made.select(*key, "value", "rows", "undefined").iter_rows()}


def ratings(*rows: tuple[str, str, str, str | None, str | None]) -> pl.DataFrame:
    """Ratings of item, rater, gender, answer and gold; race is the rater's own, age the same for all.

    Each item comes five times, as fewer have no figure.
    """
    full = [
        (f"{item}{copy}", rater, gender, f"race {rater}", "old", answer, gold)
        for copy in range(5)
        for item, rater, gender, answer, gold in rows
    ]
    return pl.DataFrame(full, schema=RATINGS, orient="row")


BY_HAND = ratings(
    ("a", "1", "Man", "No", "No"),
    ("a", "2", "Man", "Unsure", "No"),
    ("a", "3", "Woman", "Yes", "No"),
    ("b", "1", "Man", "Yes", "Yes"),
    ("b", "2", "Man", "Yes", "Yes"),
    ("b", "3", "Woman", "Yes", "Yes"),
    ("c", "3", "Woman", None, None),
)
DOMAINS = pl.DataFrame(
    {
        "item_id": [f"{item}{copy}" for copy in range(5) for item in "abb"],
        "labels": [["safety/theft"], [], []] * 5,
    },
    schema=LABELS,
)


def test_human_figures_by_hand() -> None:
    found = measured(BY_HAND, DOMAINS)
    # Item a: men (0 + 0.5) / 2 = 0.25, women 1, deviation 0.375; item b: none.
    assert found["ds", "gender", "overall", "all"] == pytest.approx((0.375 / 2, 10, None))
    # From 0.5 on: men 3 of 4, women 2 of 2.
    assert found["dpd", "gender", "overall", "all"] == pytest.approx((0.25, 30, None))
    # True-positive rates 2/2 and 1/1; false-positive rates 1/2 and 1/1.
    assert found["eod", "gender", "overall", "all"] == pytest.approx((0.5, 30, None))
    assert found["share_yes", "", "overall", "all"] == pytest.approx((4 / 6, 30, None))
    assert found["share_yes", "", "rater_gender", "Man"] == pytest.approx((1 / 2, 20, None))
    assert found["share_yes", "", "rater_gender x rater_age", "Woman x old"] == (1.0, 10, None)
    # Item a: (1/2, 1/2, 0) against (0, 0, 1), distance 1; item b: 0.
    assert found["total_variation", "gender", "overall", "all"] == pytest.approx((1 / 2, 30, None))
    assert found["total_variation", "age", "overall", "all"][2] == "no item has answers of two groups"
    assert found["icc2_1", "", "overall", "all"][1] == 10
    assert found["icc_left_out", "", "overall", "all"] == (0.0, 10, None)
    assert found["undefined_pairs", "", "overall", "all"] == pytest.approx((2 / 3, 3, None))
    assert found["correlation", "", "overall", "all"] == pytest.approx((1, 1, None))


def test_slices_of_groups_and_domains() -> None:
    found = measured(BY_HAND, DOMAINS)
    assert ("ds", "gender", "rater_gender", "Man") not in found
    assert found["ds", "race", "rater_gender", "Man"] == pytest.approx((0.25 / 2, 10, None))
    assert ("ds", "mean", "rater_gender", "Man") not in found
    assert found["icc2_1", "", "rater_gender", "Woman"][2] == "fewer than two known raters"
    assert found["ds", "gender", "domain", "safety/theft"][0] == pytest.approx(0.375)
    assert found["ds", "gender", "domain", "None"][0] == 0
    assert found["eod", "gender", "domain", "None"][2] == "no item that group 'Man' rated is safe in truth"
    assert found["ds", "mean", "overall", "all"][2] == "no item has ratings of two groups"  # there is one age


def test_items_whose_labels_are_not_known_are_in_no_domain() -> None:
    found = measured(BY_HAND, DOMAINS.filter(pl.col("item_id").str.starts_with("a")))
    assert {part for _, _, by, part in found if by == "domain"} == {"safety/theft"}
    assert found["share_yes", "", "overall", "all"][1] == 30


def test_without_human_answers_each_metric_has_one_row_that_says_so() -> None:
    found = measured(BY_HAND.with_columns(answer=pl.lit(None, dtype=pl.String)), DOMAINS)
    assert [metric for metric, *_ in found] == list(METRICS)
    assert set(found.values()) == {(None, 0, "there are no human answers")}


def test_raters_and_gold_that_the_source_does_not_give() -> None:
    nobody = [pl.lit(None, dtype=pl.String).alias(name) for name in RATINGS if name.startswith(("rater_", "safety"))]
    found = measured(BY_HAND.with_columns(nobody), DOMAINS)
    assert found["icc2_k", "", "overall", "all"][2] == "fewer than two known raters"
    assert found["alpha", "", "overall", "all"][2] == "no item has answers of two known raters"
    assert found["dpd", "race", "overall", "all"][2] == "fewer than two groups"
    assert found["eod", "race", "overall", "all"][2] == "no item has a gold answer"
    assert found["share_yes", "", "overall", "all"][0] == pytest.approx(4 / 6)


def dices(shared_data: Path) -> pl.DataFrame:
    folder = shared_data / "dices"
    if not folder.is_dir():
        pytest.skip(f"DICES is not at {folder}")
    items = pl.read_parquet(folder / "items_350.parquet", columns=["item_id", "safety_gold"])
    rows = pl.read_parquet(folder / "ratings_350.parquet").join(items, on="item_id").rename({"Q_overall": "answer"})
    return rows.select(pl.col(name).cast(dtype) for name, dtype in RATINGS.items())


def test_the_published_figures_of_dices(shared_data: Path) -> None:
    rows = dices(shared_data)
    found = measured(rows, pl.DataFrame(schema=LABELS))
    distances = {
        axis: round(value or 0, 5) for (metric, axis, *_), (value, *_) in found.items() if metric == METRICS[-1]
    }
    assert distances["gender"] == 0.09170
    assert distances["age"] == 0.09603
    assert distances["race"] == 0.13835
    assert distances["gender x age"] == 0.16156
    assert round(found["share_yes", "", "rater_gender x rater_race", "Man x White"][0] or 0, 4) == 0.1810
    women = found["share_yes", "", "rater_gender x rater_race", "Woman x Asian/Asian subcontinent"]
    assert round(women[0] or 0, 4) == 0.4783
    assert found["share_yes", "", "overall", "all"][:2] == (14_064 / 43_050, 43_050)
    assert found["icc2_1", "", "overall", "all"][1] == 350


def test_the_published_distance_of_three_races_by_gender(shared_data: Path) -> None:
    three = dices(shared_data).filter(pl.col("rater_race").str.contains("^(White|Black|Asian)"))
    found = measured(three, pl.DataFrame(schema=LABELS))
    assert round(found["total_variation", "gender x race", "overall", "all"][0] or 0, 5) == 0.20315
