"""What the summary says besides rows and figures: checks, and whether a variant beats the view that it builds on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl
from rich.console import RenderableType
from rich.text import Text

from normloom.flows.persodpo.summary import checks
from normloom.store.store import Store
from normloom.tasks.deepfakes.spoof_figures import GAIN

if TYPE_CHECKING:
    from normloom.run.build import BuildResult


def sections(result: BuildResult, store: Store) -> list[RenderableType]:
    """Return the checks of a build, and a sentence for each comparison of equal error rates."""
    return [*checks(result, store), *_claims(result, store)]


def _claims(result: BuildResult, store: Store) -> Iterator[RenderableType]:
    for manifest in result.manifests:
        if manifest.stage == "spoof_figures":
            gains = store.scan(manifest.ref).filter(metric=GAIN).filter(pl.col("value").is_not_null())
            for row in gains.sort("of", "slice_by", "slice").collect().iter_rows(named=True):
                where = "all generators" if row["slice_by"] == "overall" else row["slice"]
                yield Text(claim(row["of"], row["axis"], where, row["value"], row["low"], row["high"]))


def claim(variant: str, axis: str, where: str, value: float, low: float, high: float) -> str:
    """Return what a difference of equal error rates says: nothing if its interval covers 0."""
    other = axis.removeprefix("over ")
    told = f"{100 * abs(value):.1f} points of EER ({100 * low:+.1f} to {100 * high:+.1f})"
    if low <= 0 <= high:
        return f"{where}: no finding between {variant} and {other}; they differ by {told}"
    better, worse = (variant, other) if value > 0 else (other, variant)
    return f"{where}: {better} is better than {worse} by {told}"
