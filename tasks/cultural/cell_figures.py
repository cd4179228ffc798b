"""How well a model's answers match the labels of each language's own people, cell by cell and from cell to cell.

Each reply counts, both orders of the options alike: the label of a cell is their mean. Intervals resample memes;
differences are paired, over the memes that both cells have answers to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.media.cultural_tables import (
    CELL,
    ENGLISH,
    HARMLESS_FIRST,
    HATEFUL_FIRST,
    NATIVE,
    ONE,
    ORIGINAL,
    TRANSLATED,
    ZERO,
)
from normloom.steps.step import step
from normloom.tasks.metrics.clustered import clustered, clustered_share, macro_f1
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

AXES = {  # setting -> its value without and with
    "shot": (ZERO, ONE),
    "prompt_language": (ENGLISH, NATIVE),
    "text_version": (ORIGINAL, TRANSLATED),
}
NAMES = {"shot": "one shot", "prompt_language": "native prompt", "text_version": "translated text"}
MEMES = "memes"
_KINDS = ("tp", "fp", "fn", "tn")
_COUNTS = {
    "tp": (pl.col("answer") == 1) & (pl.col("label") == 1),
    "fp": (pl.col("answer") == 1) & (pl.col("label") == 0),
    "fn": (pl.col("answer") == 0) & (pl.col("label") == 1),
    "tn": (pl.col("answer") == 0) & (pl.col("label") == 0),
}


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy",))
def cell_figures(rows: pl.DataFrame, judgements: pl.DataFrame, *, native: tuple[tuple[str, str], ...]) -> Output:
    """Return accuracy, macro-F1, failures and position flips of each model, language and cell, and changes by axis.

    `native` pairs each language with the country whose labels count. Next to each cell stands what always answering
    its more frequent label would reach.
    """
    labelled = with_labels(rows, judgements, native)
    figures: list[dict[str, object]] = []
    for (model,), of_model in labelled.group_by("model", maintain_order=True):
        for (language,), replies in of_model.group_by("language", maintain_order=True):
            position = {"of": str(model), "slice_by": "language", "slice": str(language)}
            for cell, asked in replies.group_by(CELL[1:], maintain_order=True):
                name = cell_name(*map(str, cell))
                figures += [
                    figure_row(figure, metric=metric, axis=name, **position) for metric, figure in _of_cell(asked)
                ]
            for setting, name in NAMES.items():
                figure = _change(replies, setting)
                if figure:
                    figures.append(figure_row(figure, metric="macro_f1_change", axis=name, **position))
    return figures_output(figures)


def with_labels(rows: pl.DataFrame, judgements: pl.DataFrame, native: tuple[tuple[str, str], ...]) -> pl.DataFrame:
    """Return the replies with the label that people of their language's country gave the meme."""
    countries = pl.DataFrame(native, schema={"language": pl.String, "country": pl.String}, orient="row")
    return rows.join(countries, on="language", how="left", maintain_order="left").join(
        judgements.select("meme_id", "country", "label"), on=("meme_id", "country"), how="left", maintain_order="left"
    )


def cell_name(shot: str, prompt_language: str, text_version: str, wording: str) -> str:
    """Return a cell in words, as figures name it: "zero shot, native prompt, original text"."""
    words = f"{shot} shot, {prompt_language} prompt, {text_version} text"
    return words if wording == "own" else f"{words}, wording {wording}"


def _of_cell(replies: pl.DataFrame) -> Iterator[tuple[str, Figure]]:
    answered = replies.drop_nulls("answer")
    counts = _by_meme(answered)
    yield "accuracy", clustered(counts, _accuracy, rows=answered.height, what=MEMES)
    yield "macro_f1", clustered(counts, macro_f1, rows=answered.height, what=MEMES)
    most = int(2 * (answered["label"].sum() or 0) >= answered.height)
    constant = _by_meme(answered.with_columns(answer=pl.lit(most, dtype=pl.Int8)))
    yield "accuracy_of_majority", clustered(constant, _accuracy, rows=answered.height, what=MEMES)
    yield "macro_f1_of_majority", clustered(constant, macro_f1, rows=answered.height, what=MEMES)
    yield "failure", clustered_share(replies, pl.col("answer").is_null(), cluster="meme_id", what=MEMES)
    flips = flipped(replies)
    if not flips.is_empty():
        yield "position_flips", clustered_share(flips, pl.col("flips"), cluster="meme_id", what=MEMES)


def flipped(replies: pl.DataFrame) -> pl.DataFrame:
    """Return for each item, cell and model answered in both orders whether the answer changes with the order."""
    wide = replies.drop_nulls("answer").pivot(
        on="option_order",
        on_columns=(HATEFUL_FIRST, HARMLESS_FIRST),
        index=("model", "item_id", "meme_id", *CELL),
        values="answer",
        aggregate_function="first",
    )
    both = wide.drop_nulls([HATEFUL_FIRST, HARMLESS_FIRST])
    return both.with_columns(flips=pl.col(HATEFUL_FIRST) != pl.col(HARMLESS_FIRST))


def _change(replies: pl.DataFrame, setting: str) -> Figure | None:
    """Return macro-F1 with a setting minus without, over memes answered both ways; None if it was asked one way."""
    import numpy as np

    off, on = AXES[setting]
    answered = replies.drop_nulls("answer")
    sides = [answered.filter(pl.col(setting) == value) for value in (off, on)]
    if any(side.is_empty() for side in sides):
        return None
    other = [name for name in (*CELL[1:], "option_order") if name != setting]
    paired = [side.join(than, on=("meme_id", *other), how="semi") for side, than in (sides, sides[::-1])]
    counts = np.hstack([_by_meme(side) for side in paired])  # of both sides, meme by meme

    def change(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        kinds = len(_KINDS)
        return macro_f1(sums[:, kinds:]) - macro_f1(sums[:, :kinds])

    return clustered(counts, change, rows=sum(side.height for side in paired), what=MEMES)


def _by_meme(answered: pl.DataFrame) -> npt.NDArray[np.float64]:
    """Return counts of true and false answers as (memes, 4), the memes in the order of their ids."""
    counted = answered.group_by("meme_id").agg(**{kind: _COUNTS[kind].sum() for kind in _KINDS}).sort("meme_id")
    counts: npt.NDArray[np.float64] = counted.select(_KINDS).cast(pl.Float64).to_numpy()
    return counts


def _accuracy(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    share: npt.NDArray[np.float64] = (sums[:, 0] + sums[:, 3]) / sums.sum(axis=1)
    return share
