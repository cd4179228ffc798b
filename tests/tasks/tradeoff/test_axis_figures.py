"""Figures of axes: AlpacaEval's win rates to the last digit, failures counted twice, each axis before any average."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from in_process import prepared

from normloom.readers import locate
from normloom.schemas.training.alignx_tables import JUDGED, WORST
from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.tasks.tradeoff.axis_figures import axis_figures
from normloom.tasks.tradeoff.recorded_wins import read_judged
from normloom.testing.inline import made

PUBLISHED = {
    "alpaca-7b": (26.4596, 205, 584, 16, 0),
    "llama-2-7b-chat-hf": (71.3665, 574, 230, 1, 0),
    "phi-2": (30.6633, 234, 543, 22, 6),
    "zephyr-7b-beta": (90.5978, 727, 75, 1, 2),
}


def value_of(figures: pl.DataFrame, **wanted: str) -> Any:
    (found,) = figures.filter(**wanted)["value"]
    return found


def test_alpaca_eval_win_rates_are_the_published_ones(shared_data: Path, tmp_path: Path) -> None:
    recorded = read_judged(source=locate(shared_data / "alpaca_eval_judged"), judge="gpt4")
    store = Store(tmp_path)
    manifests = made("alignx", [axis_figures(recorded)], store)
    figures = store.scan(manifests["axis_figures"].ref).collect()
    counted = ("wins", "losses", "draws", "unjudged")
    assert {
        system: (
            round(100 * value_of(figures, of=system, metric="win_rate_valid"), 4),
            *(value_of(figures, of=system, metric=metric) for metric in counted),
        )
        for system in PUBLISHED
    } == PUBLISHED
    judged = store.scan(manifests["judged_recorded"].ref).collect()
    unjudged = judged.filter(pl.col("value").is_null())
    assert unjudged.height == 8
    assert set(unjudged["parse_status"]) == {"empty"}
    zephyr = figures.filter(of="zephyr-7b-beta", metric="win_rate_valid").row(0, named=True)
    assert 0.88 < zephyr["low"] < zephyr["value"] < zephyr["high"] < 0.93
    assert value_of(figures, of="zephyr-7b-beta", metric="win_rate_all") == pytest.approx(727.5 / 805)
    words = {system: value_of(figures, of=system, metric="words_win") for system in PUBLISHED}
    assert words["zephyr-7b-beta"] > 2 * words["alpaca-7b"]  # length is part of what wins


def judged(*rows: tuple[str, str, str, str, float | None]) -> pl.DataFrame:
    """Return judged rows from prompt id, axis, system, measure and value."""
    return pl.DataFrame(
        [
            {
                "row_id": str(number),
                "prompt_id": prompt,
                "axis": axis,
                "system": system,
                "measure": measure,
                "judge": "j",
                "value": value,
                "worst": WORST[measure],
                "words": 3,
                "reference_words": None,
                "parse_status": "ok" if value is not None else "empty",
            }
            for number, (prompt, axis, system, measure, value) in enumerate(rows)
        ],
        schema={"row_id": pl.String(), **JUDGED.columns},
    )


def three_axes() -> pl.DataFrame:
    rows: list[tuple[str, str, str, str, float | None]] = []
    for number in range(10):
        rows += [
            (f"h{number}", "helpful", "base", "win", (1.0, 0.5, 0.0, None, 1.0)[number % 5]),
            (f"s{number}", "harmless", "base", "unsafe", (1.0, 0.0, 0.0, None, 0.0)[number % 5]),
            (f"t{number}", "honest", "base", "truthful", (1.0, 1.0, 0.0, None, 1.0)[number % 5]),
            (f"t{number}", "honest", "base", "informative", (1.0, 0.0, 1.0, 1.0, 1.0)[number % 5]),
        ]
    return judged(*rows)


def test_failures_count_with_the_worst_value_or_not_at_all() -> None:
    figures = axis_figures.function(three_axes()).rows

    def of(metric: str, axis: str) -> Any:
        return value_of(figures, metric=metric, slice=axis)

    assert of("win_rate_valid", "helpful") == pytest.approx(2.5 / 4)
    assert of("win_rate_all", "helpful") == pytest.approx(2.5 / 5)
    assert of("failed_win", "helpful") == pytest.approx(0.2)
    assert of("unsafe_valid", "harmless") == pytest.approx(1 / 4)
    assert of("unsafe_all", "harmless") == pytest.approx(2 / 5)  # the worst of an unsafe share is 1
    assert of("truthful_informative_valid", "honest") == pytest.approx(2 / 4)
    assert of("truthful_informative_all", "honest") == pytest.approx(2 / 5)
    assert value_of(figures, metric="average") == pytest.approx((2.5 / 4 + 2 / 4 - 1 / 4) / 3)


def test_each_axis_comes_before_what_is_over_all() -> None:
    figures = axis_figures.function(three_axes()).rows
    places = figures["slice_by"].to_list()
    assert places[-1] == "overall"
    assert "axis" not in places[places.index("overall") :]
    assert figures["metric"][-1] == "average"


def test_few_prompts_have_no_figure() -> None:
    few = judged(*((f"p{number}", "helpful", "base", "win", 1.0) for number in range(4)))
    figures = axis_figures.function(few).rows
    assert figures.filter(metric="win_rate_valid")["undefined"].to_list() == ["fewer than 5 prompts"]
    assert figures.filter(metric="average").is_empty()


def test_what_no_judge_could_say_has_a_figure_of_failures_alone() -> None:
    failed = judged(*((f"p{number}", "helpful", "base", "win", None) for number in range(6)))
    figures = axis_figures.function(failed).rows
    assert figures.filter(metric="win_rate_valid")["undefined"].to_list() == ["nothing was judged"]
    assert value_of(figures, metric="failed_win", slice="helpful") == 1


@pytest.mark.parametrize("policy", ["null", "{engine: transformers, model: SmolLM2-135M-Instruct}"])
def test_judgements_made_elsewhere_stand_next_to_those_of_a_build(policy: str, tmp_path: Path) -> None:
    path = tmp_path / "judged.jsonl"
    record = {"model": "m", "instruction": "Why?", "baseline_reply": "So.", "model_reply": "Thus.", "preference": 1.5}
    path.write_text("\n".join(json.dumps({**record, **more}) for more in ({}, {}, {"model": ""}, {"preference": 7})))
    ends = prepared("alignx", Store(tmp_path), f"models.policy={policy}", f"source.judged={path}").ends
    stages = {stage.name: stage for stage in stages_of(*ends)}
    assert stages["judged_recorded"] in stages["axis_figures"].inputs
    made_of = stages["judged_recorded"].function(
        stages["judged_recorded"].arguments, **stages["judged_recorded"].values
    )
    assert made_of.rows["value"].to_list() == [0.5]
    assert made_of.quarantined["rule"].to_list() == ["repeated", "missing_value", "unknown_preference"]
