"""Which items are learned from, set thresholds, and are tested, for each pair of held-out speakers and generator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from normloom.core.errors import StageError
from normloom.schemas.media.deepfake_tables import REAL

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Mask = npt.NDArray[np.bool_]


class HeldOut(NamedTuple):
    """A generator and a fold of speakers that a network knows nothing of."""

    generator: str
    fold: int


class Parts(NamedTuple):
    """Which items are for what, each (items,) bool."""

    learn: Mask
    development: Mask
    test: Mask


def held_out(items: pl.DataFrame) -> list[HeldOut]:
    """Return the pairs of generator and fold whose three parts all have real items and fakes.

    Raises StageError if there is none.
    """
    real = (items["label"] == REAL).to_numpy()
    found = [held for held in asked(items) if all(_both(part, real) for part in parts(items, held))]
    if not found:
        raise StageError(
            "no generator can be held out: training, threshold and test items must each have real ones and fakes; "
            "expected at least two generators and two speakers with several sources each"
        )
    return found


def asked(items: pl.DataFrame) -> Iterator[HeldOut]:
    """Yield every pair of generator and fold."""
    generators = items.filter(pl.col("label") != REAL)["generator"].unique().sort()
    for generator in generators:
        for fold in items["fold"].drop_nulls().unique().sort():
            yield HeldOut(generator, fold)


def parts(items: pl.DataFrame, held: HeldOut) -> Parts:
    """Return who learns, develops and tests.

    Tested are the real items of the fold's speakers, and of the generator's fakes those in these voices and those in
    voices that only generators have. Nothing that shares speaker, source, bytes or (of fakes) generator with them is
    learned from or sets a threshold.
    """
    real, of_fold = pl.col("label") == REAL, pl.col("fold") == held.fold
    made = ~real & (pl.col("generator") == held.generator)
    tested = (real & of_fold) | (made & (of_fold.fill_null(value=False) | pl.col("fold").is_null()))
    test = items.select(tested.fill_null(value=False)).to_series()
    others = items.filter(test)
    known = pl.any_horizontal(
        pl.col(name).is_in(others[name].unique().implode()) for name in ("speaker", "source_item", "media_id")
    )
    rest = ~(known | made | of_fold.fill_null(value=False))
    learn, development = items.select(
        learn=rest & ~pl.col("development"), development=rest & pl.col("development")
    ).get_columns()
    return Parts(learn.to_numpy(), development.to_numpy(), test.to_numpy())


def _both(part: Mask, real: Mask) -> bool:
    return bool((part & real).any() and (part & ~real).any())
