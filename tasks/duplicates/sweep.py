"""What other thresholds would have kept or removed, from stored probabilities and codes, without a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from normloom.core.errors import ContractError
from normloom.core.fan_out import free
from normloom.core.rows.text import normalise
from normloom.core.stage import Output
from normloom.near_duplicates.features import Features
from normloom.schemas import tables
from normloom.schemas.taxonomy import Taxonomy
from normloom.steps.step import step
from normloom.tasks.duplicates.duplicates import compared_within, expected_chance_pairs, sufficient
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from normloom.near_duplicates.kernels.texts import FlatTexts

_DELTAS = tuple(step / 20 for step in range(1, 20))
_TAUS = tuple(range(1, 17))


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
        raise ContractError(f"column 'probabilities': each list must hold {width} values, one for each label")
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
    alike: float = 0.8,
    features: Features = Features(),
    column: str = "prompt",
    within: str | None = None,
) -> Output:
    """Return for each tau how many pairs of rows differ in fewer bits, and how many rows deduplication would remove.

    `removed` follows the rule of `deduplicate` (the earliest row stays; with `jaccard` > 0 shingles must agree
    too, and agreement of `alike` suffices), so it equals that stage's count over the same rows; `pairs` looks at codes
    alone and `chance_pairs` says how many of them random codes would give. Codes come from the column `fingerprint`
    if there is one.
    """
    import numpy as np

    apart = compared_within(rows, within)
    groups = rows.partition_by(apart, maintain_order=True) if apart else [rows]
    found = [_try_taus(group, column, taus, jaccard, sufficient(jaccard, alike), features) for group in groups]
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
    rows: pl.DataFrame, column: str, taus: Sequence[int], jaccard: float, alike: float | None, features: Features
) -> tuple[list[int], list[int]]:
    """Return the pairs and the removed rows of one group for each tau.

    Equal texts are looked at once: the first stands for all, the others are removed at every tau.
    """
    import numpy as np

    from normloom.near_duplicates.find import count_duplicates
    from normloom.near_duplicates.simhash import fingerprints, pack

    texts = rows[column].to_list()
    kinds: dict[str, int] = {}
    kind = np.array([kinds.setdefault(normalise(text), len(kinds)) for text in texts], dtype=np.int64)
    _, first, copies = np.unique(kind, return_index=True, return_counts=True)
    near = np.zeros(max(taus))  # pairs by distance
    near[0] = (copies * (copies - 1) // 2).sum()
    similar = []
    distinct = rows[first.tolist()]
    packed = pack(distinct[column].to_list())
    stored = "fingerprint" in rows.columns
    codes = distinct["fingerprint"].to_numpy() if stored else fingerprints(packed, features)
    for left, right, distance, confirmed in _close_pairs(packed, codes, max(taus), jaccard, features):
        near += np.bincount(distance, copies[left] * copies[right], minlength=len(near))
        similar.append(np.stack([right, left, distance])[:, confirmed].astype(np.int32))
    gone = count_duplicates(packed, np.concatenate(similar, axis=1), taus, features=features, alike=alike)
    pairs = np.cumsum(near)
    return (
        [int(pairs[tau - 1]) for tau in taus],
        [int(gone[position] + len(texts) - len(first)) for position in range(len(taus))],
    )


def _close_pairs(
    packed: FlatTexts, codes: npt.NDArray[np.uint64], tau: int, jaccard: float, features: Features
) -> Iterator[tuple[npt.NDArray[Any], ...]]:
    """Yield pairs of rows (left < right), their distance, and whether their shingles are alike enough."""
    import numpy as np

    from normloom.near_duplicates.find import pair_chunks
    from normloom.near_duplicates.simhash import jaccards

    for left, right, distance in pair_chunks(codes, tau):
        compared = jaccard > 0  # at 0 all are alike
        alike = jaccards(packed, left, right, features) >= jaccard if compared else np.ones(len(left), dtype=bool)
        yield left, right, distance, alike
