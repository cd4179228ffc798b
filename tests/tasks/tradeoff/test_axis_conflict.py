"""Axes that pull apart: correlations and shares by hand, over systems and over replies to the same prompts."""

from typing import Any

import polars as pl
import pytest

from normloom.schemas.training.alignx_tables import JUDGED, WORST
from normloom.tasks.tradeoff.conflict import conflict, worth

SYSTEMS = {"base": (0.5, 0.5), "bold": (1.0, 0.0), "shy": (0.0, 1.0), "wise": (1.0, 1.0)}  # helpful, harmless


def judged(*, systems: tuple[str, ...] = tuple(SYSTEMS), prompts: int = 8) -> pl.DataFrame:
    """Return judged rows in which each system is worth the same on every prompt; 0.5 alternates between 0 and 1."""
    rows: list[dict[str, Any]] = []
    for system in systems:
        for axis in ("helpful", "harmless"):
            for number in range(prompts):
                win, safe = (one if one != 0.5 else float(number % 2) for one in SYSTEMS[system])
                own = {"prompt_id": f"{axis}{number}", "axis": axis, "system": system}
                rows.append({**own, "measure": "win", "value": win})
                rows.append({**own, "measure": "unsafe", "value": 1 - safe})
    filled = {"judge": "j", "words": 1, "reference_words": None, "parse_status": "ok"}
    return pl.DataFrame(
        [{"row_id": str(n), **filled, "worst": WORST[row["measure"]], **row} for n, row in enumerate(rows)],
        schema={"row_id": pl.String(), **JUDGED.columns},
    )


def found(figures: pl.DataFrame, **wanted: str) -> dict[str, Any]:
    return figures.filter(**wanted).row(0, named=True)


def test_systems_that_trade_one_axis_for_the_other_correlate_below_zero() -> None:
    figures = conflict.function(judged(systems=("base", "bold", "shy"))).rows
    assert found(figures, of="systems", metric="axis_correlation")["value"] == pytest.approx(-1)
    assert found(figures, of="systems", metric="one_up_other_down")["value"] == 1
    with_the_wise = conflict.function(judged()).rows
    assert found(with_the_wise, of="systems", metric="one_up_other_down")["value"] == pytest.approx(2 / 3)
    assert found(with_the_wise, of="systems", metric="axis_correlation")["value"] > -1


def test_systems_that_are_alike_on_an_axis_have_no_correlation() -> None:
    alike = judged(systems=("base", "bold", "shy")).with_columns(
        value=pl.when((pl.col("axis") == "helpful") & (pl.col("measure") == "win")).then(1.0).otherwise("value")
    )
    told = found(conflict.function(alike).rows, of="systems", metric="axis_correlation")
    assert (told["value"], told["undefined"]) == (None, "all systems are alike on one of the axes")


def test_changes_on_the_same_prompt_are_counted_by_who_paid() -> None:
    figures = conflict.function(judged()).rows
    # The base is worth 0 or 1 on both axes at once: bold gains helpfulness where it was 0 and loses harmlessness
    # where it was 1, never on one prompt; so nobody pays, and the changes of both axes rise together.
    assert found(figures, of="bold", metric="paid", axis="helpful to harmless")["value"] == 0
    rows = judged(systems=("base", "bold")).with_columns(value=pl.when(system="base").then(0.0).otherwise("value"))
    apart = conflict.function(rows).rows
    assert found(apart, of="bold", metric="paid", axis="helpful to harmless")["value"] == 1
    assert found(apart, of="bold", metric="paid", axis="harmless to helpful")["value"] == 0
    assert found(apart, of="prompts", metric="one_up_other_down")["value"] == 1
    assert found(apart, of="systems", metric="axis_correlation")["undefined"].startswith("fewer than 3 systems")


def test_the_correlation_of_changes_is_pearsons() -> None:
    rows = judged()
    values = worth(rows).pivot(on="axis", index=("prompt_id", "system"), values="value")
    base = values.filter(system="base").select("prompt_id", h="helpful", s="harmless")
    both = values.filter(pl.col("system") != "base").join(base, on="prompt_id")
    expected = both.select(pl.corr(pl.col("helpful") - pl.col("h"), pl.col("harmless") - pl.col("s"))).item()
    got = found(conflict.function(rows).rows, of="prompts", metric="axis_correlation")
    assert got["value"] == pytest.approx(expected)
    assert got["low"] <= got["value"] <= got["high"]


def test_without_the_base_nothing_is_compared() -> None:
    assert conflict.function(judged(systems=("bold", "shy"))).rows.is_empty()


def test_failed_judgements_are_left_out_and_other_axes_are_worth_their_good() -> None:
    rows = judged(systems=("base",), prompts=1).with_columns(value=pl.lit(None, dtype=pl.Float64))
    assert worth(rows).is_empty()
    kind = rows.head(1).with_columns(axis=pl.lit("kind"), measure=pl.lit("good"), value=pl.lit(1.0))
    assert worth(kind).select("axis", "value").rows() == [("kind", 1.0)]
