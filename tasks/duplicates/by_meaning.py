"""Near-duplicates by meaning: prompts whose sentence vectors are near each other."""

from __future__ import annotations

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
from normloom.tasks.duplicates.deduplicate import Deduplication
from normloom.tasks.duplicates.duplicates import FAN_OUT, columns_compared, found_among

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from normloom.near_duplicates.kernels.texts import FlatTexts


@step(makes=tables.EMBEDDED, part_rows=256, bound=bounds.as_many, fan_out=each())
def text_vectors(rows: pl.DataFrame, model: Embedder, *, column: str = "prompt") -> pl.DataFrame:
    """Return the vector of each text."""
    vectors = pl.Series("vector", model.embed(rows[column].to_list()))
    return rows.select("row_id", vectors.arr.to_list(), prompt_id="row_id")


@step(
    name="duplicates",
    makes=tables.DUPLICATES_BY_MEANING,
    reads=columns_compared,
    bound=bounds.as_many,
    fan_out=FAN_OUT,
    libraries=("numba", "numpy"),
)
def duplicates_by_meaning(
    rows: pl.DataFrame,
    args: Deduplication,
    vectors: pl.DataFrame,
    known: pl.DataFrame | None = None,
    *,
    column: str = "prompt",
    within: str | None = None,
) -> Output:
    """Return what `duplicates` does, for the method `embedding`, and the `similarity` of each pair, its cosine.

    The winner is the row that stays of the same normalised text, or else the one whose vector has the highest cosine,
    at least `similarity`; ties go to the earliest. `vectors` are those of the rows, and of `known`. Raises
    ContractError as `duplicates` does, and for a row without vector.
    """

    def compared(some: pl.DataFrame, stored: int, packed: FlatTexts | None) -> pl.DataFrame:
        return _duplicates(some, stored, vectors, packed, column, args)

    return found_among(rows, args, known, compared, column=column, within=within, reads=("row_id", column))


def _duplicates(
    rows: pl.DataFrame,
    stored: int,
    vectors: pl.DataFrame,
    packed: FlatTexts | None,
    column: str,
    args: Deduplication,
) -> pl.DataFrame:
    from normloom.near_duplicates.by_vector import find_by_vector
    from normloom.near_duplicates.find import duplicates
    from normloom.near_duplicates.simhash import pack

    texts, codes = rows[column], rows["fingerprint"]
    near = find_by_vector(
        [normalise(text) for text in texts], _vectors(rows, vectors), similarity=args.similarity, known=stored
    )
    schema = {"index": pl.Int64, "keeper": pl.Int64, "similarity": pl.Float64}
    pairs = pl.DataFrame([(one.index, one.keeper, one.similarity) for one in near], schema=schema, orient="row")
    distance = (codes.gather(pairs["index"]) ^ codes.gather(pairs["keeper"])).bitwise_count_ones()
    index, keeper, apart = (series.to_numpy() for series in (pairs["index"], pairs["keeper"], distance))
    found = duplicates(packed or pack(texts), index, keeper, apart, args.features)
    return found.with_columns(pairs["similarity"])


def _vectors(rows: pl.DataFrame, vectors: pl.DataFrame) -> npt.NDArray[np.float32]:
    """Return the vectors of the rows, (n, dimensions)."""
    named = vectors.select("vector", row_id="prompt_id")
    own = rows.select("row_id").join(named, on="row_id", how="left", maintain_order="left")
    if own["vector"].null_count() or own["vector"].list.len().n_unique() > 1:
        raise ContractError("the side table of vectors must have one for each row, all of one length")
    return own["vector"].explode().to_numpy().reshape(rows.height, -1)
