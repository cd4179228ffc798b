"""Figures of a judge's verdicts, corrected by people's answers: overall, and in each group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import polars as pl

from normloom.tasks.audit.auditing import Auditing
from normloom.tasks.audit.rogan_gladen import rogan_gladen
from normloom.tasks.audit.stratified import (
    Rate,
    Stratum,
    covariance,
    random_answers,
    sensitivity,
    specificity,
    stratified_share,
)
from normloom.tasks.metrics.figure import Figure, figure_row, too_few

POWERED, ROGAN_GLADEN, JUDGED = "prediction-powered", "Rogan-Gladen", "as judged"
NO_ANSWERS = "no answers about rows of some verdict"


def corrected(frame: pl.DataFrame, answered: pl.DataFrame, args: Auditing) -> Iterator[dict[str, object]]:
    """Yield rows of figures: `frame` has all rows of the table, `answered` those that people answered.

    For each verdict: `share` as judged, prediction-powered and by Rogan and Gladen; `precision`; `sensitivity` and
    `specificity` of the judge (overall only); `random_answers`, how many random rows would have given the chosen figure
    the same certainty. `rows` counts answers, for shares as judged and by Rogan and Gladen rows.
    """
    known = answered.filter(pl.col("truth").is_not_null())
    for of in args.values:
        strata = _strata(frame, known, of)
        se, sp = (_of_judge(measure, strata) for measure in (sensitivity, specificity))
        slices = [("overall", "all", frame, known), *_groups(frame, known)]
        for slice_by, value, rows, answers in slices:
            where = {"of": of, "slice_by": slice_by, "slice": value}
            here = _strata(rows, answers, of)
            judged_so, others = _cells(here, verdict=True), _cells(here, verdict=False)
            judged = int((rows["audit_verdict"] == of).sum())
            share = _estimate(None if judged_so is None or others is None else [*judged_so, *others])
            precision = _estimate(judged_so, none="no row has this verdict", unknown="no answers about its rows")
            yield figure_row(Figure(value=judged / rows.height, rows=rows.height), metric="share", axis=JUDGED, **where)
            yield figure_row(share, metric="share", axis=POWERED, **where)
            elsewhere = Figure(undefined="the judge's errors are not known", rows=rows.height)
            if isinstance(se, Rate) and isinstance(sp, Rate):
                elsewhere = rogan_gladen(judged, rows.height, se, sp, covariance(strata))
            yield figure_row(elsewhere, metric="share", axis=ROGAN_GLADEN, **where)
            yield figure_row(precision, metric="precision", **where)
        for metric, rate in (("sensitivity", se), ("specificity", sp)):
            figure = _figure(rate, known.height) if isinstance(rate, Rate) else rate
            yield figure_row(figure, metric=metric, of=of)
        if of == args.of:
            yield figure_row(_random(strata, frame.height, args), metric="random_answers", of=of, axis=args.figure)


def _strata(frame: pl.DataFrame, answered: pl.DataFrame, of: str) -> list[Stratum]:
    """Return the strata as they were drawn, those without answers too."""
    whole = frame.group_by("audit_stratum").agg(pl.len(), pl.col("audit_verdict").first())
    given = answered.group_by("audit_stratum").agg(pl.len(), (pl.col("truth") == of).sum().alias("hits"))
    counts = {name: (answers, hits) for name, answers, hits in given.iter_rows()}
    found = []
    for name, rows, verdict in whole.sort("audit_stratum").iter_rows():
        answers, hits = counts.get(name, (0, 0))
        found.append(Stratum(verdict=verdict == of, rows=rows, answers=answers, hits=hits))
    return found


def _cells(strata: Sequence[Stratum], *, verdict: bool) -> list[Stratum] | None:
    """Return the strata of a verdict; one without answers joins the one with the most.

    None if no row of this verdict has an answer: then nothing is known of them.
    """
    some = [one for one in strata if one.verdict is verdict]
    known = sorted((one for one in some if one.answers), key=lambda one: one.answers)
    if some and not known:
        return None
    if spare := sum(one.rows for one in some if not one.answers):
        known[-1] = replace(known[-1], rows=known[-1].rows + spare)
    return known


def _groups(frame: pl.DataFrame, answered: pl.DataFrame) -> Iterator[tuple[str, str, pl.DataFrame, pl.DataFrame]]:
    pairs = frame.select(pl.col("audit_groups").list.explode(empty_as_null=True)).drop_nulls().unnest("audit_groups")
    for by, value in pairs.unique().sort("by", "value").iter_rows():
        here = pl.col("audit_groups").list.contains(pl.struct(by=pl.lit(by), value=pl.lit(value)))
        yield by, value, frame.filter(here), answered.filter(here)


def _estimate(cells: Sequence[Stratum] | None, *, none: str = "no rows", unknown: str = NO_ANSWERS) -> Figure:
    if cells is None:
        return Figure(undefined=unknown)
    if not cells:
        return Figure(undefined=none)
    answers = sum(cell.answers for cell in cells)
    if reason := too_few(answers, "answers"):
        return Figure(undefined=reason, rows=answers)
    return _figure(stratified_share(cells), answers)


def _of_judge(measure: Callable[[Sequence[Stratum]], Rate | None], strata: Sequence[Stratum]) -> Rate | Figure:
    answers = sum(one.answers for one in strata)
    if reason := too_few(answers, "answers"):
        return Figure(undefined=reason, rows=answers)
    if not all(one.answers for one in strata):
        return Figure(undefined=NO_ANSWERS, rows=answers)
    return measure(strata) or Figure(undefined="no answer is of this truth", rows=answers)


def _figure(rate: Rate, answers: int) -> Figure:
    return Figure(value=rate.value, low=rate.low, high=rate.high, rows=answers)


def _random(strata: list[Stratum], table: int, args: Auditing) -> Figure:
    chosen = [one for one in strata if args.figure == "share" or one.verdict]
    answers = sum(one.answers for one in chosen)
    if not chosen or not all(one.answers for one in chosen):
        return Figure(undefined=NO_ANSWERS, rows=answers)
    rate = stratified_share(chosen)
    return Figure(value=float(random_answers(rate, sum(one.rows for one in chosen), table)), rows=answers)
