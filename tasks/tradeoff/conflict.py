"""Whether axes pull apart: do systems, and replies to the same prompt, win on one axis and lose on the other?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations, permutations
from typing import TYPE_CHECKING

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.training.alignx_tables import (
    BASE,
    GOOD,
    HARMLESS,
    HELPFUL,
    HONEST,
    INFORMATIVE,
    TRUTHFUL,
    UNSAFE,
    WIN,
)
from normloom.steps.step import step
from normloom.tasks.metrics.clustered import clustered, ratio
from normloom.tasks.metrics.figure import FEWEST, Figure, figure_row, figures_output
from normloom.tasks.metrics.mean import RESAMPLES, SEED

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from normloom.tasks.metrics.clustered import Statistic

    Array = npt.NDArray[np.float64]

Row = dict[str, object]
CORRELATION, APART, PAID = "axis_correlation", "one_up_other_down", "paid"
SYSTEMS, PROMPTS = "systems", "prompts"
FEWEST_SYSTEMS = 3


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy",))
def conflict(rows: pl.DataFrame, *, base: str = BASE) -> Output:
    """Return how axes pull apart, from judged rows of several systems; `base` is what the others are compared with.

    What a reply is worth on an axis, 0 to 1: the win (helpful), 1 - unsafe (harmless), truthful and informative
    (honest), good (any other). Over `systems`: the correlation of their means on both axes, and the share of systems
    that are above the base on one axis and below it on the other. Over `prompts`: the same of changes against the
    base's reply to the same prompt, whatever axis the prompt is of. `paid`, by system: the share of prompts where the
    first axis of `A to B` rose and the second fell. Intervals resample prompts; systems are not drawn, they are all
    there are.
    """
    values = worth(rows)
    if values.is_empty() or base not in set(values["system"]):
        return figures_output([])
    axes = values["axis"].unique(maintain_order=True).to_list()
    figures: list[Row] = []
    for one, other in combinations(axes, 2):
        figures += _over_systems(values, one, other, base)
        figures += _over_prompts(values, one, other, base)
    return figures_output(figures)


def worth(rows: pl.DataFrame) -> pl.DataFrame:
    """Return prompt_id, of (the prompt's axis), system, axis and value: what each judged reply is worth on each axis.

    Of several judges of a measure the first is taken; failed judgements are left out.
    """
    first = pl.col("judge") == pl.col("judge").first().over("measure")
    wide = (
        rows.filter(first)
        .select("prompt_id", "system", "measure", "value", of="axis")
        .pivot(on="measure", on_columns=(WIN, UNSAFE, TRUTHFUL, INFORMATIVE, GOOD), index=("prompt_id", "of", "system"))
    )
    by_axis = {
        HELPFUL: pl.col(WIN),
        HARMLESS: 1 - pl.col(UNSAFE),
        HONEST: pl.col(TRUTHFUL) * pl.col(INFORMATIVE),
    }
    known = ("prompt_id", "of", "system")
    parts = [wide.select(*known, axis=pl.lit(axis), value=value) for axis, value in by_axis.items()]
    others = wide.filter(~pl.col("of").is_in(list(by_axis)))
    parts.append(others.select(*known, axis="of", value=GOOD))
    return pl.concat(parts).drop_nulls("value")


def _over_systems(values: pl.DataFrame, one: str, other: str, base: str) -> Iterator[Row]:
    import numpy as np

    def named(figure: Figure, metric: str) -> Row:
        return figure_row(figure, metric=metric, of=SYSTEMS, axis=f"{one} x {other}")

    own = {axis: values.filter(pl.col("axis") == axis, pl.col("of") == axis) for axis in (one, other)}
    systems = sorted(set(own[one]["system"]) & set(own[other]["system"]))
    reason = _lacking(own, systems, base)
    if reason:
        yield named(Figure(undefined=reason, rows=len(systems)), CORRELATION)
        yield named(Figure(undefined=reason, rows=len(systems)), APART)
        return
    generator = np.random.default_rng(SEED)
    drawn = {axis: _means(rows, systems, generator) for axis, rows in own.items()}
    at = systems.index(base)
    yield named(_figure(_correlations(drawn[one], drawn[other]), len(systems)), CORRELATION)
    changes = [np.delete(means - means[:, [at]], at, axis=1) for means in drawn.values()]
    yield named(_figure((changes[0] * changes[1] < 0).mean(axis=1), len(systems) - 1), APART)


def _lacking(own: Mapping[str, pl.DataFrame], systems: list[str], base: str) -> str | None:
    if base not in systems or len(systems) < FEWEST_SYSTEMS:
        return f"fewer than {FEWEST_SYSTEMS} systems, the base among them"
    few = next((axis for axis, rows in own.items() if rows["prompt_id"].n_unique() < FEWEST), None)
    return f"fewer than {FEWEST} {few} prompts" if few else None


def _means(rows: pl.DataFrame, systems: list[str], generator: np.random.Generator) -> Array:
    """Return the mean of each system, (1 + draws, systems): first that of all prompts, then of each draw of them."""
    import numpy as np

    wide = rows.pivot(on="system", on_columns=systems, index="prompt_id", values="value").sort("prompt_id")
    values = wide.select(systems).to_numpy().astype(np.float64)
    there = np.isfinite(values)
    counts = generator.multinomial(len(values), np.full(len(values), 1 / len(values)), size=RESAMPLES)
    weights = np.vstack([np.ones((1, len(values))), counts])
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Array = weights @ np.where(there, values, 0) / (weights @ there)
    return means


def _correlations(one: Array, other: Array) -> Array:
    """Return Pearson's correlation of each row of both."""
    import numpy as np

    a, b = (means - means.mean(axis=1, keepdims=True) for means in (one, other))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return found


def _figure(draws: Array, rows: int) -> Figure:
    """Return the first of the draws with the interval of the others; undefined if it is not finite."""
    import numpy as np

    if not np.isfinite(draws[0]):
        return Figure(undefined="all systems are alike on one of the axes", rows=rows)
    known = draws[1:][np.isfinite(draws[1:])]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (draws[0], draws[0])
    return Figure(value=float(draws[0]), low=float(low), high=float(high), rows=rows)


def _over_prompts(values: pl.DataFrame, one: str, other: str, base: str) -> Iterator[Row]:
    changed = _changes(values, one, other, base)

    def named(figure: Figure, metric: str, of: str, axis: str) -> Row:
        return figure_row(figure, metric=metric, of=of, axis=axis)

    between = f"{one} x {other}"
    a, b = pl.col("one"), pl.col("other")
    yield named(_summed(changed, (a, b, a * a, b * b, a * b), _pearson), CORRELATION, PROMPTS, between)
    yield named(_summed(changed, (a * b < 0,), ratio), APART, PROMPTS, between)
    for (system,), own in changed.group_by("system", maintain_order=True):
        for (first, up), (second, down) in permutations(((one, a), (other, b))):
            paid = _summed(own, ((up > 0) & (down < 0),), ratio)
            yield named(paid, PAID, str(system), f"{first} to {second}")


def _changes(values: pl.DataFrame, one: str, other: str, base: str) -> pl.DataFrame:
    """Return prompt_id, system, one and other: by how much a system's reply is worth more than the base's."""
    wide = values.filter(pl.col("axis").is_in([one, other])).pivot(
        on="axis", on_columns=(one, other), index=("prompt_id", "system"), values="value"
    )
    both = wide.drop_nulls()
    before = both.filter(system=base).select("prompt_id", _one=one, _other=other)
    return (
        both.filter(pl.col("system") != base)
        .join(before, on="prompt_id", maintain_order="left")
        .select("prompt_id", "system", one=pl.col(one) - pl.col("_one"), other=pl.col(other) - pl.col("_other"))
    )


def _summed(changed: pl.DataFrame, kinds: tuple[pl.Expr, ...], statistic: Statistic) -> Figure:
    """Return a statistic of the sums of expressions, the count of rows last, with its interval over prompts."""
    if changed.is_empty():
        return Figure(undefined="no reply is judged on both axes")
    sums = [kind.cast(pl.Float64).sum().alias(str(place)) for place, kind in enumerate(kinds)]
    counts = changed.group_by("prompt_id").agg(*sums, all=pl.len().cast(pl.Float64)).sort("prompt_id")
    numbers = counts.drop("prompt_id").to_numpy()
    return clustered(numbers, statistic, rows=changed.height, what=PROMPTS)


def _pearson(sums: Array) -> Array:
    """Return Pearson's correlation from sums of a, b, a^2, b^2, ab and their count."""
    import numpy as np

    a, b, aa, bb, ab, n = sums.T
    found: Array = (n * ab - a * b) / np.sqrt(np.maximum((n * aa - a * a) * (n * bb - b * b), 0))
    return found
