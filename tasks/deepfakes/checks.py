"""Checks of deepfake detection, as METHODS names them: what each asks, what was found, whether it passed."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.run.checks.own import worked
from normloom.schemas.media.deepfake_tables import FAKE, REAL
from normloom.schemas.training import preference_tables
from normloom.steps.step import step
from normloom.tasks.deepfakes.aligners import ALIGNER
from normloom.tasks.deepfakes.held_out import asked, held_out, parts
from normloom.tasks.missing_modality.checks import check_vectors
from normloom.tasks.preferences.checks import checked, checks_output

_CHANCE = 0.5  # area under the ROC curve


@step(makes=preference_tables.CHECKED, name="checks", fan_out=free("one row for each check"), libraries=("numpy",))
def check_detection(
    rows: pl.DataFrame,
    pairs: pl.DataFrame,
    fits: pl.DataFrame,
    aligned: pl.DataFrame,
    scores: pl.DataFrame,
    *vectors: pl.DataFrame,
) -> Output:
    """Return the checks: classes in each part (C2), nothing shared (C3), trained networks (C4), a refiner that does
    something (C5), vectors without constant columns (C12), pairs, what the aligner learned, and the orientation.
    """
    made = [
        *_held_out(rows),
        *_pairs(rows, pairs),
        *_trained(pl.concat([aligned, fits])),
        *_aligned(aligned),
        *_moved(fits),
        *_orientation(scores),
        *check_vectors(vectors),
    ]
    return checks_output(iter(made))


def _held_out(items: pl.DataFrame) -> Iterator[dict[str, object]]:
    jobs, every = held_out(items), list(asked(items))
    yield checked(
        "C2",
        "held out",
        "each held-out pair has real items and fakes to learn from, to set thresholds and to test",
        found=f"{len(jobs)} of {len(every)} pairs of generator and speakers",
        passed=len(jobs) == len(every),
    )
    for column in ("speaker", "source_item", "media_id", "generator"):
        shared = 0
        for held in jobs:
            split = parts(items, held)
            known, tested = (
                items.filter(pl.Series(split.learn | split.development)),
                items.filter(pl.Series(split.test)),
            )
            if column == "generator":
                known, tested = known.filter(label=FAKE), tested.filter(label=FAKE)
            shared += len(set(known[column]) & set(tested[column]))
        yield checked(
            "C3",
            column,
            f"no {column} is both known and tested",
            found=f"{shared} shared, over {len(jobs)} held-out pairs",
            passed=not shared,
        )


def _pairs(items: pl.DataFrame, pairs: pl.DataFrame) -> Iterator[dict[str, object]]:
    labels = dict(items.select("item_id", "label").iter_rows())
    told = pairs.with_columns(pl.col("anchor", "other").replace_strict(labels))
    wrong = told.filter(pl.col("positive") & ((pl.col("anchor") != REAL) | (pl.col("other") != REAL))).height
    yield checked(
        "pairs", "positives", "only real items are pulled together", found=f"{wrong} with a fake", passed=not wrong
    )
    alone = pairs.group_by("anchor", "anchor_view").agg(lacks=pl.col("positive").all()).filter("lacks").height
    yield checked("pairs", "negatives", "each anchor has a negative", found=f"{alone} have none", passed=not alone)


def _trained(fits: pl.DataFrame) -> Iterator[dict[str, object]]:
    for (network,), runs in fits.group_by("network", maintain_order=True):
        passed, found = worked(runs.lazy(), column="loss", step="epoch", weights="weights", by=("generator", "fold"))
        yield checked("C4", str(network), "weights changed and the loss fell in each run", found=found, passed=passed)


def _aligned(aligned: pl.DataFrame) -> Iterator[dict[str, object]]:
    last = aligned.filter(pl.col("epoch") == pl.col("epoch").max()).drop_nulls("positive")
    above = int((last["positive"] > last["negative"]).sum())
    means = last.select(pl.col("positive", "negative").mean()).row(0)
    yield checked(
        "C4",
        f"{ALIGNER}, development",
        "development pairs that belong together are nearer than those that do not",
        found=f"{above} of {last.height} runs; mean cosines {means[0] or 0:.2f} and {means[1] or 0:.2f}",
        passed=last.height > 0 and above == last.height,
    )


def _moved(fits: pl.DataFrame) -> Iterator[dict[str, object]]:
    last = fits.filter(pl.col("epoch") == pl.col("epoch").max())
    for (variant,), runs in last.group_by("network", maintain_order=True):
        least = runs.select(pl.col("moved").min()).item()
        if runs.select(pl.col("moved").max()).item() == 0:
            continue  # it has no refiner
        yield checked(
            "C5",
            str(variant),
            "what leaves the refiner differs from what enters it",
            found=f"by {least:.3f} at least",
            passed=least > 0,
        )


def _orientation(scores: pl.DataFrame) -> Iterator[dict[str, object]]:
    for (variant,), some in scores.group_by("variant", maintain_order=True):
        areas = []
        for _, told in some.group_by("held_out", "fold"):
            ranks = told.with_columns(pl.col("score").rank("average"))
            real = ranks.filter(label=REAL)
            below = float(real["score"].sum()) - real.height * (real.height + 1) / 2
            areas.append(below / (real.height * (told.height - real.height)))
        mean = sum(areas) / len(areas)
        yield checked(
            "orientation",
            str(variant),
            "higher scores are real: the mean area under the ROC curve is above chance",
            found=f"AUC {mean:.3f}",
            passed=mean > _CHANCE,
        )
