"""Whose judgement does a model follow? Its answers against the labels of each group, and the groups against each other.

The pull towards a reference group: among answers about things that it and another group label differently, the share
that sides with the reference; without a pull one half. Intervals resample memes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.readers import LIBRARIES, Located
from normloom.schemas import tables
from normloom.steps.step import step
from normloom.tasks.cultural.cell_figures import MEMES, flipped
from normloom.tasks.cultural.memes import ratings_of
from normloom.tasks.metrics.clustered import clustered_share
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output
from normloom.tasks.metrics.krippendorff_alpha import ordinal_alpha
from normloom.tasks.metrics.share import share

Row = dict[str, object]
_YES_NO = 2  # answers that raters choose from


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy", "scipy"))
def follow_figures(rows: pl.DataFrame, judgements: pl.DataFrame, *, reference: str) -> Output:
    """Return each model's agreement with each group, its pull towards the reference, and how often the order decides.

    The figures are over all cells, and by wording if there are several.
    """
    figures: list[Row] = []
    for (model,), replies in rows.group_by("model", maintain_order=True):
        answered = replies.drop_nulls("answer").select("meme_id", "answer", "wording", "option_order")
        told = answered.join(judgements.select("meme_id", "country", "label"), on="meme_id", maintain_order="left")
        figures += list(_followed(told, str(model), reference))
        figures += list(_flips(replies, str(model)))
    return figures_output(figures)


@step(
    makes=tables.FIGURES,
    fan_out=free("one row for each figure"),
    libraries=("numpy", "scipy", "krippendorff", *LIBRARIES),
)
def country_figures(rows: pl.DataFrame, *, ratings: Located | None) -> Output:
    """Return what people themselves say: the share called hateful, how far two countries agree, and alpha within one.

    Alpha, of the ratings, is the ceiling of any agreement with the country's label.
    """
    wide = rows.pivot(on="country", index="meme_id", values="label", maintain_order=True).drop("meme_id")
    countries = wide.columns
    memes = wide.height
    figures = [
        figure_row(share(int(wide[name].sum()), memes, what=MEMES), metric="hateful", of=name) for name in countries
    ]
    for one, other in combinations(countries, 2):
        same = int((wide[one] == wide[other]).sum())
        figures.append(figure_row(share(same, memes, what=MEMES), metric="agreement", of=one, axis=other))
    unanimous = int(wide.select(pl.min_horizontal(pl.all()) == pl.max_horizontal(pl.all())).to_series().sum())
    figures.append(figure_row(share(unanimous, memes, what=MEMES), metric="all_agree", of="countries"))
    if ratings:
        told = ratings_of(ratings).join(rows.select("meme_id").unique(), on="meme_id", how="semi")
        figures += [figure_row(_alpha(told.filter(country=name)), metric="alpha", of=name) for name in countries]
    return figures_output(figures)


def _followed(told: pl.DataFrame, model: str, reference: str) -> Iterator[Row]:
    theirs = told.filter(country=reference).select("meme_id", reference_label="label").unique("meme_id")
    for (country,), of_country in told.group_by("country", maintain_order=True):
        figure = _share(of_country, pl.col("answer") == pl.col("label"))
        yield figure_row(figure, metric="agreement", of=model, axis=str(country))
        if country == reference:
            continue
        differ = of_country.join(theirs, on="meme_id").filter(pl.col("reference_label") != pl.col("label"))
        figure = _share(differ, pl.col("answer") == pl.col("reference_label"))
        yield figure_row(figure, metric=f"sides_with_{reference}", of=model, axis=str(country))


def _flips(replies: pl.DataFrame, model: str) -> Iterator[Row]:
    flips = flipped(replies)
    yield figure_row(_share(flips, pl.col("flips")), metric="position_flips", of=model)
    for (wording,), made in flips.group_by("wording", maintain_order=True):
        if wording != "own":
            yield figure_row(
                _share(made, pl.col("flips")), metric="position_flips", of=model, slice_by="wording", slice=str(wording)
            )


def _share(rows: pl.DataFrame, holds: pl.Expr) -> Figure:
    if rows.is_empty():
        return Figure(undefined="no answers")
    return clustered_share(rows, holds, cluster="meme_id", what=MEMES)


def _alpha(ratings: pl.DataFrame) -> Figure:
    if ratings.is_empty():
        return Figure(undefined="no ratings")
    wide = ratings.pivot(on="rater_id", index="meme_id", values="hateful").drop("meme_id")
    return ordinal_alpha(wide.cast(pl.Float64).fill_null(float("nan")).to_numpy(), _YES_NO)
