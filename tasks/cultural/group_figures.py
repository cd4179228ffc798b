"""Whose judgement does a model follow? Its answers against each country's labels, and countries against each other."""

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
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output
from normloom.tasks.metrics.following import followed, share_of
from normloom.tasks.metrics.raters.krippendorff_alpha import ordinal_alpha
from normloom.tasks.metrics.share import share

Row = dict[str, object]
_YES_NO = 2  # answers that raters choose from


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy",))
def follow_figures(rows: pl.DataFrame, judgements: pl.DataFrame, *, reference: str) -> Output:
    """Return each model's agreement with each group, its pull towards the reference, and how often the order decides.

    The figures are over all cells, and by wording if there are several.
    """
    figures: list[Row] = []
    for (model,), replies in rows.group_by("model", maintain_order=True):
        answered = replies.drop_nulls("answer").select("meme_id", "answer", "wording", "option_order")
        told = answered.join(judgements.select("meme_id", "country", "label"), on="meme_id", maintain_order="left")
        figures += followed(told, of=str(model), item="meme_id", group="country", what=MEMES, reference=reference)
        figures += list(_flips(replies, str(model)))
    return figures_output(figures)


@step(
    makes=tables.FIGURES,
    fan_out=free("one row for each figure"),
    libraries=("numpy", "krippendorff", *LIBRARIES),
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
        given, _ = ratings_of(ratings, countries)
        told = given.join(rows.select("meme_id").unique(), on="meme_id", how="semi")
        figures += [figure_row(_alpha(told.filter(country=name)), metric="alpha", of=name) for name in countries]
    return figures_output(figures)


def _flips(replies: pl.DataFrame, model: str) -> Iterator[Row]:
    flips = flipped(replies)
    yield figure_row(share_of(flips, pl.col("flips"), "meme_id", MEMES), metric="position_flips", of=model)
    for (wording,), made in flips.group_by("wording", maintain_order=True):
        if wording != "own":
            sliced = {"slice_by": "wording", "slice": str(wording)}
            figure = share_of(made, pl.col("flips"), "meme_id", MEMES)
            yield figure_row(figure, metric="position_flips", of=model, **sliced)


def _alpha(ratings: pl.DataFrame) -> Figure:
    if ratings.is_empty():
        return Figure(undefined="no ratings")
    wide = ratings.pivot(on="rater_id", index="meme_id", values="hateful").drop("meme_id")
    return ordinal_alpha(wide.cast(pl.Float64).fill_null(float("nan")).to_numpy(), _YES_NO)
