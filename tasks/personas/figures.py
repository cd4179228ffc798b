"""How often the classifier is right, how much it dares to decide, and how quickly each strategy learns."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.people.persona_tables import STRATEGIES
from normloom.steps.step import step
from normloom.tasks.metrics.clustered import clustered, clustered_share
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output
from normloom.tasks.metrics.share import share

Row = dict[str, object]
PEOPLE = "users"
LEAVE_ONE_OUT, PEOPLES = "leave_one_out", "people"
_RIGHT = pl.col("predicted") == pl.col("accepted")


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy",))
def loop_figures(rows: pl.DataFrame, rounds: pl.DataFrame, taught: pl.DataFrame) -> Output:
    """Return accuracy, coverage and accuracy at coverage by task, leaving one user out, and the curve of each strategy.

    A curve is the accuracy, in each round, over all users whose label was not known yet; `learning_area` is the mean
    of a curve over its rounds. `gain` compares a strategy with random: the difference of the areas over the same users.
    Intervals resample users. `people` are the answers since: each against what was predicted before it was given.
    """
    figures = [
        figure
        for (task,), of_task in rows.group_by("classification_task", maintain_order=True)
        for figure in _counted(of_task, str(task), LEAVE_ONE_OUT)
    ]
    for (task,), of_task in taught.group_by("classification_task", maintain_order=True):
        figures += list(_counted(of_task, str(task), PEOPLES))
    for (task,), of_task in rounds.group_by("classification_task", maintain_order=True):
        figures += list(_learning(of_task, str(task)))
    return figures_output(figures)


def _counted(rows: pl.DataFrame, task: str, of: str) -> Iterator[Row]:
    def counted(metric: str, right: int, among: int) -> Row:
        figure = share(right, among, what=PEOPLE)
        return figure_row(figure, metric=metric, of=of, slice_by="classification_task", slice=task)

    covered = rows.filter("covered")
    yield counted("accuracy", rows.filter(_RIGHT).height, rows.height)
    yield counted("coverage", covered.height, rows.height)
    yield counted("accuracy_covered", covered.filter(_RIGHT).height, covered.height)
    yield counted("accepted", rows.filter("accepted").height, rows.height)


def _learning(rows: pl.DataFrame, task: str) -> Iterator[Row]:
    def named(figure: Figure, metric: str, strategy: str, axis: str = "") -> Row:
        return figure_row(figure, metric=metric, of=strategy, axis=axis, slice_by="classification_task", slice=task)

    areas = {strategy: _by_user(rows.filter(strategy=strategy)) for strategy in STRATEGIES}
    for strategy in STRATEGIES:
        own = rows.filter(strategy=strategy)
        for (number,), of_round in own.group_by("round", maintain_order=True):
            right = clustered_share(of_round, _RIGHT, cluster="username", what=PEOPLE)
            yield named(right, "accuracy", strategy, f"round {number:02d}")
        asked = own.filter("asked")
        yield named(clustered_share(asked, pl.col("accepted"), cluster="username", what=PEOPLE), "acceptance", strategy)
        yield named(clustered_share(own, pl.col("covered"), cluster="username", what=PEOPLE), "coverage", strategy)
        yield named(_area(areas[strategy]), "learning_area", strategy)
        if strategy != STRATEGIES[0]:
            yield named(_gain(areas[STRATEGIES[0]], areas[strategy]), "gain", strategy, f"over {STRATEGIES[0]}")


def _by_user(rows: pl.DataFrame) -> pl.DataFrame:
    """Return of each user the share of rounds in which they weigh, right (`right`) and at all (`all`).

    A round weighs as much as any other, and in it each open user the same: the sums are those of the mean accuracy.
    """
    weight = 1 / pl.len().over("round")
    weighed = rows.with_columns(_weight=weight)
    return (
        weighed.group_by("username")
        .agg(right=(pl.col("_weight") * _RIGHT).sum(), all=pl.col("_weight").sum())
        .sort("username")
    )


def _area(users: pl.DataFrame) -> Figure:
    counts = users.select("right", "all").to_numpy()
    return clustered(counts, lambda sums: sums[:, 0] / sums[:, 1], rows=users.height, what=PEOPLE)


def _gain(base: pl.DataFrame, other: pl.DataFrame) -> Figure:
    both = base.join(other, on="username", how="full", coalesce=True, suffix="_other").fill_null(0.0).sort("username")
    counts = both.select("right", "all", "right_other", "all_other").to_numpy()
    return clustered(
        counts, lambda sums: sums[:, 2] / sums[:, 3] - sums[:, 0] / sums[:, 1], rows=both.height, what=PEOPLE
    )
