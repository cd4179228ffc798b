"""How well each variant does, what knowledge gains over none and over another meme's, and whom the sources mention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.media.knowledge_tables import LEXICON, SOURCES
from normloom.schemas.media.meme_tables import ADAPTER, ENRICHED, HEAD, METHODS, PLAIN, SHUFFLED, TEST, VARIANTS
from normloom.steps.step import step
from normloom.tasks.metrics.clustered import clustered
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output
from normloom.tasks.metrics.mean import mean
from normloom.tasks.metrics.share import share

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Counts = npt.NDArray[np.float64]
    Paired = Callable[[Counts, Counts], Counts]  # of the sums of both sides

MACRO_F1, MAJORITY, GAIN, RELATIVE_GAIN = "macro_f1", "macro_f1_of_majority", "gain", "relative_gain"
DROP, FAITHFUL, LINK_RATE, LEXICON_ALONE = "drop", "drop_over_random", "link_rate", "lexicon_alone_f1"
MEMES = "memes"
_KINDS = 3  # of counts for each class: true positives, false positives, false negatives


@step(makes=tables.FIGURES, name="figures", fan_out=free("one row for each figure"), libraries=("numpy",))
def verdict_figures(rows: pl.DataFrame) -> Output:
    """Return macro-F1 on the test memes of each task, variant and method, and paired gains.

    A gain stands twice: in macro-F1, and relative to what it is a gain over. Intervals resample memes, the same for
    both sides.
    """
    made = []
    for (task,), tested in rows.filter(split=TEST).group_by("task", maintain_order=True):
        wide = tested.select("meme_id", "label", "label_hat", _by=pl.concat_str("variant", "method", separator=":"))
        classes = sorted({*tested["label"], *tested["label_hat"]})
        sides = {str(by): counts(one.sort("meme_id"), classes) for (by,), one in wide.group_by("_by")}
        memes = tested["meme_id"].n_unique()
        place = {"slice_by": "task", "slice": str(task)}
        for variant in VARIANTS:
            for method in METHODS:
                figure = clustered(sides[f"{variant}:{method}"], macro_f1, rows=memes, what=MEMES)
                made.append(figure_row(figure, metric=MACRO_F1, of=variant, axis=method, **place))
        most = tested["label"].mode().sort()[0]
        always = counts(_first(tested).with_columns(label_hat=pl.lit(most)).sort("meme_id"), classes)
        figure = clustered(always, macro_f1, rows=memes, what=MEMES)
        made.append(figure_row(figure, metric=MAJORITY, of=str(most), **place))
        for of, axis, side, than in _comparisons():
            for metric, statistic in ((GAIN, gain), (RELATIVE_GAIN, relative_gain)):
                figure = paired(sides[side], sides[than], statistic, rows=memes)
                made.append(figure_row(figure, metric=metric, of=of, axis=axis, **place))
    return figures_output(made)


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy", "scipy"))
def faithfulness_figures(rows: pl.DataFrame) -> Output:
    """Return how far verdicts fall without the cited evidence and without as much at random, and the difference."""
    made = []
    for name, some in (
        ("all", rows),
        *((str(task), one) for (task,), one in rows.group_by("task", maintain_order=True)),
    ):
        place = {} if name == "all" else {"slice_by": "task", "slice": name}
        cited, chance = some["drop_cited"].to_numpy(), some["drop_random"].to_numpy()
        for of, values in (("cited", cited), ("random", chance)):
            made.append(figure_row(mean(values, what=MEMES), metric=DROP, of=of, **place))
        difference = mean(cited - chance, what=MEMES)
        made.append(figure_row(difference, metric=FAITHFUL, of="cited", axis="cited over random", **place))
    return figures_output(made)


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy",))
def link_figures(rows: pl.DataFrame, mentions: pl.DataFrame) -> Output:
    """Return the share of the memes of each class that a source is mentioned in, and what the lexicon alone predicts.

    A lexicon that every harmful meme and no other mentions would be the label under another name.
    """
    made = []
    for (task,), memes in rows.group_by("task", maintain_order=True):
        for source in SOURCES:
            hit = mentions.filter(source=source)["meme_id"].unique()
            linked = memes.with_columns(hit=pl.col("meme_id").is_in(hit.implode()))
            for (label,), some in linked.sort("label").group_by("label", maintain_order=True):
                figure = share(int(some["hit"].sum()), some.height)
                made.append(
                    figure_row(figure, metric=LINK_RATE, of=source, axis=str(task), slice_by="label", slice=str(label))
                )
            if source == LEXICON:
                figure = clustered(_lexicon_alone(linked), macro_f1, rows=linked.height, what=MEMES)
                made.append(figure_row(figure, metric=LEXICON_ALONE, of=source, axis=str(task)))
    return figures_output(made)


def counts(rows: pl.DataFrame, classes: Sequence[str]) -> Counts:
    """Return for each meme and class whether it is a true positive, a false positive, a false negative; (memes, 3c)."""
    columns = []
    for name in classes:
        true, said = pl.col("label") == name, pl.col("label_hat") == name
        columns += [(true & said), (said & ~true), (true & ~said)]
    made: Counts = rows.select(one.cast(pl.Float64).alias(str(place)) for place, one in enumerate(columns)).to_numpy()
    return made


def macro_f1(sums: Counts) -> Counts:
    """Return the mean F1 of the classes; one that neither truth nor verdicts have is left out, as in scikit-learn."""
    import numpy as np

    tp, fp, fn = sums.reshape(len(sums), -1, _KINDS).transpose(2, 0, 1)
    there = tp + fp + fn > 0
    scores = np.where(there, 2 * tp / np.where(there, 2 * tp + fp + fn, 1), 0)
    mean_score: Counts = scores.sum(axis=1) / there.sum(axis=1)
    return mean_score


def gain(first: Counts, other: Counts) -> Counts:
    """Return the difference in macro-F1."""
    return macro_f1(first) - macro_f1(other)


def relative_gain(first: Counts, other: Counts) -> Counts:
    """Return the difference in macro-F1 over the macro-F1 of the other side."""
    return gain(first, other) / macro_f1(other)


def paired(first: Counts, other: Counts, statistic: Paired, *, rows: int) -> Figure:
    """Return a statistic of two sides of the same memes with its interval over memes."""
    import numpy as np

    width = first.shape[1]
    return clustered(
        np.hstack([first, other]), lambda sums: statistic(sums[:, :width], sums[:, width:]), rows=rows, what=MEMES
    )


def _comparisons() -> Iterator[tuple[str, str, str, str]]:
    """Yield what gains over what: whose it is, in words, and the two sides."""
    for method in METHODS:
        for than in (PLAIN, SHUFFLED):
            yield ENRICHED, f"over {than}, {method}", f"{ENRICHED}:{method}", f"{than}:{method}"
    for variant in VARIANTS:
        yield ADAPTER, f"over {HEAD}, {variant}", f"{variant}:{ADAPTER}", f"{variant}:{HEAD}"


def _first(tested: pl.DataFrame) -> pl.DataFrame:
    return tested.unique("meme_id", keep="first", maintain_order=True).select("meme_id", "label")


def _lexicon_alone(linked: pl.DataFrame) -> Counts:
    """Return the counts of saying the class that a hit, and no hit, most often has."""
    most = linked.group_by("hit").agg(label_hat=pl.col("label").mode().sort().first())
    said = linked.join(most, on="hit", maintain_order="left").sort("meme_id")
    return counts(said, sorted(linked["label"].unique()))
