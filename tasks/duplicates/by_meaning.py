"""Removing near-duplicates by meaning: prompts whose sentence vectors are near each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from normloom.core.errors import ContractError
from normloom.core.fan_out import each
from normloom.core.models.protocol import Embedder
from normloom.core.rows.text import normalise
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.duplicates.deduplicate import Deduplication, removal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from normloom.near_duplicates.find import Duplicate
    from normloom.near_duplicates.kernels.texts import FlatTexts


@step(makes=tables.EMBEDDED, part_rows=256, bound=bounds.as_many, fan_out=each())
def text_vectors(rows: pl.DataFrame, model: Embedder, *, column: str = "prompt") -> pl.DataFrame:
    """Return the vector of each text."""
    vectors = pl.Series("vector", model.embed(rows[column].to_list()))
    return rows.select("row_id", vectors.arr.to_list(), prompt_id="row_id")


@step(name="deduplicate", bound=bounds.as_many, fan_out=each(), libraries=("numba", "numpy"))
def deduplicate_by_meaning(
    rows: pl.DataFrame,
    args: Deduplication,
    vectors: pl.DataFrame,
    known: pl.DataFrame | None = None,
    *,
    column: str = "prompt",
    within: str | None = None,
) -> Output:
    """Return what `deduplicate` does, for the method `embedding`.

    The winner of a removed row is the kept row of the same normalised text, or else the kept row whose vector has the
    highest cosine, at least `similarity`; ties go to the earliest. Its payload says `similarity` (the cosine) besides
    `distance` and `jaccard`. `vectors` are those of the rows, and of `known`. Raises ContractError as `deduplicate`
    does, and for a row without vector.
    """

    def duplicates(
        compared: pl.DataFrame, group: Sequence[int], stored: int, packed: FlatTexts | None
    ) -> list[Duplicate]:
        return _duplicates(compared[group], group, stored, vectors, packed, column, args)

    return removal(rows, args, known, duplicates, column=column, within=within)


def _duplicates(
    rows: pl.DataFrame,
    group: Sequence[int],
    stored: int,
    vectors: pl.DataFrame,
    packed: FlatTexts | None,
    column: str,
    args: Deduplication,
) -> list[Duplicate]:
    from normloom.near_duplicates.by_vector import find_by_vector
    from normloom.near_duplicates.find import Duplicate
    from normloom.near_duplicates.simhash import jaccards, pack

    if rows.height == 1:
        return []
    texts, codes = rows[column].to_list(), rows["fingerprint"].to_numpy()
    known = sum(place < stored for place in group)
    near = find_by_vector(
        [normalise(text) for text in texts], _vectors(rows, vectors), similarity=args.similarity, known=known
    )
    pairs = pl.DataFrame([(one.index, one.keeper) for one in near], schema=["index", "keeper"], orient="row")
    index, keeper = (pairs[name].cast(pl.Int64).to_numpy() for name in pairs.columns)
    shared = jaccards(packed or pack(texts), index, keeper, args.features).tolist()
    return [
        Duplicate(
            index=group[one.index],
            keeper=group[one.keeper],
            distance=int(codes[one.index] ^ codes[one.keeper]).bit_count(),
            jaccard=jaccard,
            similarity=one.similarity,
        )
        for one, jaccard in zip(near, shared, strict=True)
    ]


def _vectors(rows: pl.DataFrame, vectors: pl.DataFrame) -> npt.NDArray[np.float32]:
    """Return the vectors of the rows, (n, dimensions)."""
    named = vectors.select("vector", row_id="prompt_id")
    own = rows.select("row_id").join(named, on="row_id", how="left", maintain_order="left")
    if own["vector"].null_count() or own["vector"].list.len().n_unique() > 1:
        raise ContractError("the side table of vectors must have one for each row, all of one length")
    return own["vector"].explode().to_numpy().reshape(rows.height, -1)
