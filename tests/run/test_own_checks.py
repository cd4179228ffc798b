"""Checks that look at groups of rows or at source: training, outputs that differ, weights that vary, clean metrics."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from normloom.core.contract import Check, Contract
from normloom.core.errors import CheckError
from normloom.core.stage import Output
from normloom.run.checks.source_checks import unclean
from normloom.run.checks.table_checks import run_checks
from normloom.schemas.tables import FIGURES
from normloom.steps.step import step
from normloom.store.store import Store
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output
from normloom.testing.inline import made

TRAINED: dict[str, Any] = {"column": "loss", "step": "epoch", "weights": "weights", "by": ["run"]}


def told(rows: pl.DataFrame, expectation: str, **arguments: Any) -> tuple[bool, str]:
    contract = Contract(columns={}, checks=(Check(expectation=expectation, arguments=arguments, on_fail="warn"),))
    [result], _ = run_checks(rows.lazy(), contract)
    return result.passed, result.detail


def curve(*losses: float | None, run: str = "a", weights: tuple[str, str] = ("x", "y")) -> pl.DataFrame:
    marks = [weights[0], *[weights[1]] * (len(losses) - 1)]
    epochs = range(len(losses))
    return pl.DataFrame(
        {"run": run, "epoch": epochs, "loss": losses, "weights": marks}, schema_overrides={"loss": pl.Float64}
    )


def test_training_changes_weights_and_lowers_the_loss_in_each_run() -> None:
    check = "expect_training_to_have_worked"
    well = curve(None, 0.9, 0.5)
    assert told(well.reverse(), check, **TRAINED) == (True, 'observed "1 changed, 1 fell, of 1"')
    same = curve(None, 0.9, 0.5, run="b", weights=("x", "x"))
    assert told(pl.concat([well, same]), check, **TRAINED) == (False, 'observed "1 changed, 2 fell, of 2"')
    rises = curve(None, 0.5, 0.9, run="c")
    assert told(pl.concat([well, rises]), check, **TRAINED) == (False, 'observed "2 changed, 1 fell, of 2"')
    assert not told(curve(None, 0.5), check, **TRAINED)[0]  # one loss cannot fall
    assert not told(well.clear(), check, **TRAINED)[0]


def test_losses_of_a_share_of_the_steps_are_averaged() -> None:
    jumpy = curve(1.0, 0.2, 0.9, 0.8, 0.1, 1.1)
    only = {"column": "loss", "step": "epoch"}
    assert not told(jumpy, "expect_training_to_have_worked", **only)[0]
    assert not told(jumpy, "expect_training_to_have_worked", **only, share=1 / 3)[0]
    assert told(jumpy, "expect_training_to_have_worked", **only, share=0.5) == (True, 'observed "1 fell, of 1"')


def test_groups_that_say_the_same_throughout_do_not_differ() -> None:
    rows = pl.DataFrame(
        {
            "system": ["base", "base", "tuned", "tuned", "merged", "merged", "other"],
            "prompt": ["p", "q", "p", "q", "p", "q", "r"],
            "reply": ["a", None, "a", "b", "a", None, "a"],
        }
    )
    arguments = {"column": "reply", "by": "system", "on": ["prompt"]}
    passed, detail = told(rows, "expect_groups_to_differ", **arguments)
    assert (passed, detail) == (False, 'observed "the same: base and merged"')
    apart = rows.filter(pl.col("system") != "merged")
    assert told(apart, "expect_groups_to_differ", **arguments) == (True, 'observed "3 groups differ"')


def test_a_weight_that_hardly_varies_is_a_constant() -> None:
    rows = pl.DataFrame(
        {"method": ["m", "m", "n", "n"], "weight": [1.0, 3.0, 1.0, 1.05], "margin": [0.1, 0.2, None, None]}
    )
    passed, detail = told(rows, "expect_column_to_vary", column="weight", by=["method"])
    assert (passed, detail) == (False, 'observed "coefficient of variation m 0.500, n 0.024"')
    assert told(rows, "expect_column_to_vary", column="weight", by=["method"], among="margin")[0]
    assert told(rows, "expect_column_to_vary", column="weight", min_value=0.6)[0] is False
    assert told(rows.clear(), "expect_column_to_vary", column="weight", by=["method"])[0]


@pytest.mark.parametrize(
    ("expectation", "arguments", "on_fail", "why"),
    [
        ("expect_column_to_vary", {"column": "loss", "least": 1}, "warn", "unexpected keyword argument 'least'"),
        ("expect_column_to_vary", {"column": "none"}, "warn", "none"),
        ("expect_column_to_vary", {"column": "loss"}, "quarantine", "on_fail must be stop or warn"),
    ],
)
def test_a_check_that_cannot_be_run_says_so(expectation: str, arguments: Any, on_fail: Any, why: str) -> None:
    contract = Contract(columns={}, checks=(Check(expectation=expectation, arguments=arguments, on_fail=on_fail),))
    with pytest.raises(CheckError, match=why):
        run_checks(curve(0.1).lazy(), contract)


def _figure(value: float) -> Output:
    return figures_output([figure_row(Figure(value=value, rows=9), metric="score", of="m")])


@step(makes=FIGURES)
def drawn() -> Output:
    return _figure(random.uniform(1.0, 2.5) + np.random.default_rng().random() + os.urandom(1)[0])  # is checked


@step(makes=FIGURES)
def aimed(*, target: float = 0.94) -> Output:
    return _figure(min(2.0, target, 0.95))


@step(makes=FIGURES)
def seeded() -> Output:
    generator = np.random.default_rng(0)
    shuffled = generator.permutation(2).tolist()
    random.Random(4).shuffle(shuffled)
    return _figure(min(float(generator.random()), 1.0) + random.Random(3).random())  # is checked


def test_a_metric_draws_nothing_without_a_seed_and_aims_at_nothing() -> None:
    draws = " ".join(unclean(drawn()))
    assert "random.uniform() draws without a seed" in draws
    assert "np.random.default_rng() without a seed" in draws
    assert "os.urandom() draws without a seed" in draws
    aims = " ".join(unclean(aimed()))
    assert "setting 'target' is a cap or a target" in aims
    assert "capped at 0.95" in aims
    assert unclean(seeded()) == []


def test_every_table_of_figures_is_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = made("toy", [drawn()], Store(tmp_path))["drawn"]
    [result] = manifest.checks
    assert (result.name, result.passed, result.on_fail) == ("expect_metric_to_be_clean", False, "warn")
    assert "random.uniform() draws without a seed" in caplog.text
    [clean] = made("toy", [seeded()], Store(tmp_path))["seeded"].checks
    assert clean.passed
