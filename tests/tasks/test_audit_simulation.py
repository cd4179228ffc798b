"""Audits of a table of known truth, by a judge of known sensitivity and specificity: 1,000 draws of 100 answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest

from normloom.tasks.audit.auditing import Auditing, ChosenFigure
from normloom.tasks.audit.rogan_gladen import rogan_gladen
from normloom.tasks.audit.strata import cut, spreads
from normloom.tasks.audit.stratified import (
    Rate,
    Stratum,
    covariance,
    neyman,
    random_answers,
    sensitivity,
    specificity,
    stratified_share,
)
from normloom.tasks.metrics.share import wilson

DRAWS, BUDGET, ROWS = 1000, 100, 4000
JUDGES = {"strong": (0.35, 0.9, 0.85), "weak": (0.5, 0.8, 0.8)}  # true share, sensitivity, specificity


@dataclass(frozen=True)
class Table:
    """Rows with verdict and truth, of which exactly so many are wrong as the judge's rates say; cut into strata."""

    share: float
    rows: list[int]
    truths: list[int]
    verdicts: list[bool]
    spread: dict[str, list[float]]

    def drawn(self, figure: ChosenFigure, random: np.random.Generator) -> list[Stratum]:
        """Return one audit: the strata that the figure needs, with answers drawn without replacement."""
        sizes = neyman(self.rows, self.spread[figure], BUDGET)
        return [
            Stratum(
                verdict=verdict, rows=rows, answers=size, hits=int(random.hypergeometric(truths, rows - truths, size))
            )
            for rows, truths, verdict, size in zip(self.rows, self.truths, self.verdicts, sizes, strict=True)
            if size
        ]

    @property
    def precision(self) -> float:
        hits = sum(truths for truths, verdict in zip(self.truths, self.verdicts, strict=True) if verdict)
        return hits / self.judged

    @property
    def judged(self) -> int:
        return sum(rows for rows, verdict in zip(self.rows, self.verdicts, strict=True) if verdict)


@cache
def table(judge: str) -> Table:
    share, se, sp = JUDGES[judge]
    random = np.random.default_rng(20)
    truth = np.arange(ROWS) < share * ROWS
    right = np.concatenate(
        [
            np.arange(truth.sum()) < round(se * truth.sum()),
            np.arange(ROWS - truth.sum()) < round(sp * (ROWS - truth.sum())),
        ]
    )
    verdict = truth == right
    margin = np.where(right, random.beta(2.5, 1.5, ROWS), random.beta(1.2, 4, ROWS))  # unsure where it errs
    rows = pl.DataFrame({"audit_verdict": np.where(verdict, "yes", "no"), "audit_margin": margin, "truth": truth})
    args = {"verdict": "v", "show": ("t",), "values": ("no", "yes"), "of": "yes", "budget": BUDGET}
    rows = rows.with_columns(cut(rows, Auditing(**args)))
    cells = rows.group_by("audit_stratum").agg(pl.len(), pl.col("truth").sum(), pl.col("audit_verdict").first())
    names = sorted(cells["audit_stratum"])
    found = {name: (count, truths, said == "yes") for name, count, truths, said in cells.iter_rows()}
    return Table(
        share=share,
        rows=[found[name][0] for name in names],
        truths=[found[name][1] for name in names],
        verdicts=[found[name][2] for name in names],
        spread={one: spreads(rows, names, Auditing(**args, figure=one)) for one in ("share", "precision")},
    )


def rates(judge: str, figure: ChosenFigure, estimate: Callable[[Sequence[Stratum]], Any]) -> list[Rate]:
    random = np.random.default_rng(7)
    return [estimate(table(judge).drawn(figure, random)) for _ in range(DRAWS)]


def covers(found: Sequence[Any], truth: float) -> float:
    return sum(bool(one.low <= truth <= one.high) for one in found) / len(found)


def width(found: Sequence[Rate]) -> float:
    return float(np.mean([one.high - one.low for one in found]))


@pytest.mark.parametrize("judge", JUDGES)
def test_intervals_hold_the_truth_as_often_as_they_say(judge: str) -> None:
    shares = rates(judge, "share", stratified_share)
    precisions = rates(judge, "precision", stratified_share)
    assert np.mean([one.value for one in shares]) == pytest.approx(table(judge).share, abs=0.005)  # no bias
    assert 0.93 <= covers(shares, table(judge).share) <= 0.97
    assert 0.93 <= covers(precisions, table(judge).precision) <= 0.97
    above = sum(one.low > table(judge).precision for one in precisions) / DRAWS
    assert above <= 0.035  # how often a gate on the lower bound would be passed wrongly, 0.025 if exact


@pytest.mark.parametrize("judge", JUDGES)
def test_measured_errors_of_the_judge_hold_too(judge: str) -> None:
    _, se, sp = JUDGES[judge]
    assert 0.92 <= covers(rates(judge, "share", sensitivity), se) <= 0.98
    assert 0.92 <= covers(rates(judge, "share", specificity), sp) <= 0.98


@pytest.mark.parametrize("judge", JUDGES)
def test_groups_without_answers_are_corrected_by_the_errors_measured_elsewhere(judge: str) -> None:
    _, se, sp = JUDGES[judge]
    random = np.random.default_rng(11)
    found = []
    for _ in range(DRAWS):
        strata = table(judge).drawn("share", random)
        truths = int(random.binomial(400, 0.6))
        judged = int(random.binomial(truths, se) + random.binomial(400 - truths, 1 - sp))
        sensitive, specific = sensitivity(strata), specificity(strata)
        assert sensitive
        assert specific
        found.append(rogan_gladen(judged, 400, sensitive, specific, covariance(strata)))
    assert 0.93 <= covers(found, 0.6) <= 0.97


@pytest.mark.parametrize(("judge", "figure", "times"), [("strong", "share", 2.5), ("weak", "share", 2.0)])
def test_random_rows_would_take_more_answers(judge: str, figure: ChosenFigure, times: float) -> None:
    audits = rates(judge, figure, stratified_share)
    needed = round(float(np.mean([random_answers(one, ROWS, ROWS) for one in audits])))
    assert needed > times * BUDGET
    random = np.random.default_rng(3)
    truths = round(table(judge).share * ROWS)
    hits = random.hypergeometric(truths, ROWS - truths, needed, size=DRAWS)
    bounds = np.array([wilson(int(one), needed) for one in hits])
    correction = (1 - needed / ROWS) ** 0.5  # of a sample from so small a table
    assert float((bounds[:, 1] - bounds[:, 0]).mean()) * correction == pytest.approx(width(audits), rel=0.06)
