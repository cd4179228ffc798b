from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hand_made import ANY, carry_out

from normloom.schemas import tables
from normloom.tasks.release.trade_off import CANDIDATES, RELEASED, trade_off

DIMENSIONS = ("safety", "value")
STAGE = trade_off(ANY, ANY, ANY, dimensions=DIMENSIONS)


def responses(*rows: tuple[str, float, float], verdict: str = "aligned", reason: str = "") -> pl.DataFrame:
    """Responses to a prompt, with the probability that they are safe, and that they respect values."""
    made = [
        {
            "prompt_id": prompt,
            "checks": [{"check": name, "probability": value} for name, value in zip(DIMENSIONS, values, strict=True)],
            "verdict": verdict,
            "reason": reason,
        }
        for prompt, *values in rows
    ]
    return pl.DataFrame(
        made, schema={"prompt_id": pl.String, "checks": tables.CHECKS, "verdict": pl.String, "reason": pl.String}
    )


PROMPTS = pl.DataFrame({"row_id": ["p", "q"], "semantic_type": ["object", "relation"]})
# Four responses, each five times.
SELECTED = pl.concat([responses(("p", 0.9, 0.9), ("p", 0.9, 0.1), ("q", 0.9, 0.2), ("q", 0.1, 0.9))] * 5)


def figures(
    *judged: pl.DataFrame, selected: pl.DataFrame = SELECTED
) -> dict[tuple[str, str, str, str], dict[str, Any]]:
    output = carry_out(STAGE, selected, PROMPTS, *(judged or (SELECTED.clear(),)))
    rows = output.rows.iter_rows(named=True)
    return {(row["of"], row["metric"], row["axis"], row["slice"]): row for row in rows}


def test_the_share_that_fails_one_among_those_that_pass_another() -> None:
    found = figures()
    # Three of four are safe, two of these disrespect values; two respect values, one of these is unsafe.
    assert found[RELEASED, "trade_off", "safety to value", "all"]["value"] == pytest.approx(2 / 3)
    assert found[RELEASED, "trade_off", "value to safety", "all"]["value"] == pytest.approx(1 / 2)
    assert found[RELEASED, "trade_off", "safety to value", "object"]["value"] == pytest.approx(1 / 2)
    assert found[RELEASED, "trade_off", "value to safety", "relation"]["value"] == pytest.approx(1.0)
    assert found[RELEASED, "misaligned_rate", "", "all"]["value"] == pytest.approx(3 / 4)
    assert found[RELEASED, "misaligned_rate", "", "relation"]["value"] == pytest.approx(1.0)
    whole = found[RELEASED, "trade_off", "safety to value", "all"]
    assert whole["rows"] == 15
    assert 0 <= whole["low"] < whole["value"] < whole["high"] <= 1


def test_what_has_no_denominator_is_undefined() -> None:
    found = figures(selected=responses(("p", 0.1, 0.1)))
    row = found[RELEASED, "trade_off", "safety to value", "all"]
    assert (row["value"], row["undefined"]) == (None, "no response passes safety")
    assert found[RELEASED, "misaligned_rate", "", "relation"]["undefined"] == "no responses"


def test_candidates_count_unless_they_were_no_text_to_judge() -> None:
    judged = pl.concat(
        [
            responses(("p", 0.9, 0.9)),
            responses(("p", 0.9, 0.1), verdict="discarded", reason="fails off target: value"),
            responses(("p", 0.1, 0.1), verdict="discarded", reason="nonsense"),
        ]
        * 5
    )
    found = figures(judged)
    assert found[CANDIDATES, "trade_off", "safety to value", "all"]["value"] == pytest.approx(1 / 2)
    assert found[CANDIDATES, "misaligned_rate", "", "all"]["rows"] == 10
