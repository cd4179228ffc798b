"""What the summary says besides rows and figures: checks, and which method is better as far as intervals carry it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl
from rich.console import RenderableType
from rich.text import Text

from normloom.flows.persodpo.summary import checks
from normloom.schemas.media.modality_tables import SHARED
from normloom.store.store import Store
from normloom.tasks.missing_modality.curves import AREA

if TYPE_CHECKING:
    from normloom.run.build import BuildResult


def sections(result: BuildResult, store: Store) -> list[RenderableType]:
    """Return the checks of a build, and a sentence for each comparison of whole curves."""
    return [*checks(result, store), *_claims(result, store)]


def _claims(result: BuildResult, store: Store) -> Iterator[RenderableType]:
    for manifest in result.manifests:
        if manifest.stage == "curves":
            gains = store.scan(manifest.ref).filter(metric=f"{AREA}_gain").filter(pl.col("value").is_not_null())
            for row in gains.sort("axis").collect().iter_rows(named=True):
                yield Text(claim(row["axis"], row["value"], row["low"], row["high"]))


def claim(axis: str, value: float, low: float, high: float) -> str:
    """Return what a difference of areas under two curves says: nothing if its interval covers 0."""
    other, _, missing = axis.removeprefix("over ").partition(", ")
    told = f"{abs(value):.3f} in mean AUROC ({low:+.3f} to {high:+.3f})"
    if low <= 0 <= high:
        return f"{missing}: no finding between {SHARED} and {other}; they differ by {told}"
    better, worse = (SHARED, other) if value > 0 else (other, SHARED)
    return f"{missing}: {better} is better than {worse} by {told}"
