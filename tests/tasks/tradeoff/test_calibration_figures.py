"""Calibration: ECE over ten bins and Brier scores by hand, before and after, on held-out rows only."""

from typing import Any

import polars as pl
import pytest

from normloom.tasks.tradeoff.calibration import calibration_figures, reliability

GIVEN = ((0.95, True), (0.95, True), (0.95, False), (0.65, True), (0.65, False))  # of the likeliest of two axes


def routed(copies: int = 1) -> pl.DataFrame:
    """Return routed rows of the test split, one axis of two; local calibration says 0.6 of all, global changes nothing.

    Training rows, sure and always wrong, count nowhere.
    """
    rows: list[dict[str, Any]] = []
    for confidence, right in GIVEN * copies:
        said = [confidence, 1 - confidence]
        rows.append(
            {"split": "test", "axis": "a" if right else "b", "probabilities": said, "calibrated_local": [0.6, 0.4]}
        )
        rows.append({"split": "train", "axis": "b", "probabilities": [1.0, 0.0], "calibrated_local": [1.0, 0.0]})
    return pl.DataFrame(
        [
            {"prompt_id": f"p{number:02d}", "calibrated_global": row["probabilities"], **row}
            for number, row in enumerate(rows)
        ]
    )


def of(figures: pl.DataFrame, metric: str, kind: str) -> dict[str, Any]:
    return figures.filter(metric=metric, of=kind).row(0, named=True)


def test_ece_and_brier_are_those_counted_by_hand() -> None:
    figures = calibration_figures.function(routed()).rows
    assert set(figures["slice"]) == {"test"}
    assert of(figures, "ece", "uncalibrated")["value"] == pytest.approx((abs(2 - 2.85) + abs(1 - 1.3)) / 5)
    squares = 2 * 0.05**2 + 0.95**2 + 0.35**2 + 0.65**2  # the same of both axes
    assert of(figures, "brier", "uncalibrated")["value"] == pytest.approx(squares / 5)
    assert of(figures, "accuracy", "uncalibrated")["value"] == pytest.approx(3 / 5)
    assert of(figures, "ece", "local")["value"] == pytest.approx(0)
    assert of(figures, "ece_change", "local")["value"] == pytest.approx(-0.23)
    assert of(figures, "ece_change", "global")["value"] == 0


def test_a_change_has_an_interval_of_the_same_draws() -> None:
    figures = calibration_figures.function(routed(copies=20)).rows
    change = of(figures, "ece_change", "local")
    assert change["low"] < change["value"] < change["high"]
    unchanged = of(figures, "brier_change", "global")
    assert (unchanged["low"], unchanged["high"]) == (0, 0)


def test_bins_count_all_held_out_rows() -> None:
    rows = reliability.function(routed()).rows.filter(of="uncalibrated")
    assert rows["rows"].to_list() == [0, 0, 0, 0, 0, 0, 2, 0, 0, 3]
    assert rows.row(9, named=True)["accuracy"] == pytest.approx(2 / 3)
    assert rows.row(6, named=True)["confidence"] == pytest.approx(0.65)
    assert rows["accuracy"].null_count() == 8


def test_temperatures_of_neighbourhoods_have_a_spread() -> None:
    calibrators = pl.DataFrame({"kind": ["global", "local", "local"], "temperature": [1.5, 1.0, 2.0]})
    figures = calibration_figures.function(routed(), calibrators).rows
    assert of(figures, "temperature", "global")["value"] == 1.5
    local = of(figures, "temperature", "local")
    assert (local["value"], local["rows"]) == (1.5, 2)
    assert local["spread"] == pytest.approx(0.5**0.5)
