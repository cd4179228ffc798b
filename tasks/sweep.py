"""What other thresholds would have kept or removed, from stored probabilities and codes, without a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from normloom.errors import ContractError
from normloom.fan_out import free
from normloom.features import Features
from normloom.schemas import tables
from normloom.schemas.taxonomy import Taxonomy
from normloom.stage import Output
from normloom.step import step
from normloom.tasks.deduplicate import expected_chance_pairs
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output
from normloom.text import normalise

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_DELTAS = tuple(step / 20 for step in range(1, 20))
_TAUS = tuple(range(1, 17))
_CHUNK = 1 << 16  # pairs that are Python objects at a time


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy",))
def sweep_delta(rows: pl.DataFrame, *, taxonomies: tuple[Taxonomy, ...], deltas: tuple[float, ...] = _DELTAS) -> Output:
    """Return for each delta and dimension how many labels are kept and how many prompts have at least one.

    A label that an expansion was drawn for has no probability and stays at every delta. Probabilities are stored in
    single precision, so one that is nearer to delta than that counts as equal to it. Raises ContractError for
    probabilities of other labels than the taxonomies'.
    """
    import numpy as np

    width = sum(len(taxonomy.labels) for taxonomy in taxonomies)
    scored = rows.filter(pl.col("probabilities").list.len() > 0)["probabilities"]
    if (scored.list.len() != width).any():
        raise ContractError(f"column 'probabilities' holds lists of other lengths than the taxonomies' {width} labels")
    probabilities = scored.explode().cast(pl.Float32).to_numpy().reshape(-1, width)
    drawn = rows.with_row_index("_row").select("_row", "labels").explode("labels").unnest("labels")
    drawn = drawn.filter(pl.col("label").is_not_null() & pl.col("probability").is_null())
    made = []
    start = 0
    for taxonomy in taxonomies:
        block = probabilities[:, start : start + len(taxonomy.labels)]
        start += len(taxonomy.labels)
        own = drawn.filter(pl.col("dimension") == taxonomy.dimension)
        for delta in deltas:
            kept = block >= np.float32(delta)
            counts = {
                "labels_kept": int(kept.sum()) + own.height,
                "prompts_labelled": int(kept.any(axis=1).sum()) + own["_row"].n_unique(),
            }
            made += [
                figure_row(
                    Figure(value=count, rows=rows.height),
                    metric=metric,
                    of="classify",
                    axis=taxonomy.dimension,
                    slice_by="delta",
                    slice=f"{delta:.2f}",
                )
                for metric, count in counts.items()
            ]
    return figures_output(made)


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numba", "numpy"))
def sweep_tau(
    rows: pl.DataFrame,
    *,
    taus: tuple[int, ...] = _TAUS,
    jaccard: float = 0.5,
    features: Features = Features(),
    column: str = "prompt",
    within: str | None = None,
) -> Output:
    """Return for each tau how many pairs of rows differ in fewer bits, and how many rows deduplication would remove.

    `removed` follows the rule of tasks/deduplicate.py (the earliest row stays; with `jaccard` > 0 shingles must agree
    too), so it equals that stage's count over the same rows; `pairs` looks at codes alone and `chance_pairs` says
    how many of them random codes would give. Codes come from the column `fingerprint` where there is one.
    """
    import numpy as np

    groups = [rows] if within is None else rows.partition_by(within, maintain_order=True)
    found = [_try_taus(group, column, taus, jaccard, features) for group in groups]
    pairs, removed = np.array(found, dtype=np.int64).reshape(-1, 2, len(taus)).sum(axis=0).tolist()
    made = []
    for tau, near, gone in zip(taus, pairs, removed, strict=True):
        chance = sum(expected_chance_pairs(group.height, tau) for group in groups)
        made += [
            figure_row(
                Figure(value=value, rows=rows.height), metric=metric, of="deduplicate", slice_by="tau", slice=str(tau)
            )
            for metric, value in (("pairs", near), ("removed", gone), ("chance_pairs", chance))
        ]
    return figures_output(made)


def _try_taus(
    rows: pl.DataFrame, column: str, taus: Sequence[int], jaccard: float, features: Features
) -> tuple[list[int], list[int]]:
    """Return the pairs and the removed rows of one group for each tau.

    Equal texts are looked at once: the first stands for all, the others are removed at every tau.
    """
    import numpy as np

    texts = rows[column].to_list()
    kinds: dict[str, int] = {}
    kind = np.array([kinds.setdefault(normalise(text), len(kinds)) for text in texts], dtype=np.int64)
    _, first, copies = np.unique(kind, return_index=True, return_counts=True)
    near = np.zeros(max(taus))  # pairs by distance
    near[0] = (copies * (copies - 1) // 2).sum()
    similar = []
    for left, right, distance, alike in _close_pairs(rows[first.tolist()], column, max(taus), jaccard, features):
        near += np.bincount(distance, copies[left] * copies[right], minlength=len(near))
        similar.append(np.stack([right, left, distance])[:, alike].astype(np.int32))
    gone = _removed(len(first), np.concatenate(similar, axis=1), taus)
    pairs = np.cumsum(near)
    return (
        [int(pairs[tau - 1]) for tau in taus],
        [int(gone[place] + len(texts) - len(first)) for place in range(len(taus))],
    )


def _close_pairs(
    rows: pl.DataFrame, column: str, tau: int, jaccard: float, features: Features
) -> Iterator[tuple[npt.NDArray[Any], ...]]:
    """Yield pairs of rows (left < right), their distance, and whether their shingles are alike enough."""
    import numpy as np

    from normloom.near_duplicates import pair_chunks
    from normloom.simhash import fingerprints, jaccards, pack

    packed = pack(rows[column].to_list())
    codes = rows["fingerprint"].to_numpy() if "fingerprint" in rows.columns else fingerprints(packed, features)
    for left, right, distance in pair_chunks(codes, tau):
        compared = jaccard > 0  # at 0 all are alike
        alike = jaccards(packed, left, right, features) >= jaccard if compared else np.ones(len(left), dtype=bool)
        yield left, right, distance, alike


def _removed(n: int, pairs: npt.NDArray[np.int32], taus: Sequence[int]) -> list[int]:
    """Return for each tau how many of n rows have an earlier row that stays within tau of them.

    `pairs` is (3, pairs): a row, an earlier one and their distance. Bit t of a row's mark says whether it goes at
    the t-th tau, so that one pass in the order of rows serves all of them.
    """
    import numpy as np

    reached = [sum((distance < tau) << place for place, tau in enumerate(taus)) for distance in range(max(taus))]
    marks = [0] * n
    order = np.argsort(pairs[0], kind="stable")
    for start in range(0, len(order), _CHUNK):
        for row, earlier, distance in pairs[:, order[start : start + _CHUNK]].T.tolist():
            marks[row] |= reached[distance] & ~marks[earlier]
    return [sum(mark >> place & 1 for mark in marks) for place in range(len(taus))]
