"""Splitting into train, validation and test so that no cluster of near-duplicate prompts straddles two."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Self

import polars as pl
from pydantic import Field, model_validator

from normloom.core.errors import ContractError
from normloom.core.fan_out import each, free
from normloom.core.rows.blocks import Blocks
from normloom.core.rows.text import exact
from normloom.core.stage import Output
from normloom.near_duplicates.features import Features
from normloom.schemas import tables
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.prompts.dialogue import said_by_user

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from normloom.near_duplicates.kernels.texts import FlatTexts

SPLITS = ("train", "validation", "test")
_AT_ONCE = 65_536  # rows of a frame that are gathered together
_LARGE = 0.01  # share of the prompts above which a cluster is placed by itself


class Splitting(Args):
    """Shares of the prompts, and what makes two prompts near: in a cluster, and as leakage.

    `cluster_tau` and `leakage_tau` are Hamming distances that a pair must stay under, both confirmed by a
    shingle Jaccard of at least `cluster_jaccard`. Clusters are cut wider than leakage is measured.
    """

    train: float = Field(0.8, ge=0, le=1, description="share of the prompts")
    validation: float = Field(0.1, ge=0, le=1, description="share of the prompts")
    test: float = Field(0.1, ge=0, le=1, description="share of the prompts")
    seed: int = Field(42, description="seed of the split")
    cluster_tau: int = Field(14, ge=1, le=64, description="Hamming distance below which prompts share a split")
    cluster_jaccard: float = Field(0.3, ge=0, le=1, description="confirmation by shingle Jaccard, of leakage too")
    leakage_tau: int = Field(10, ge=1, le=64, description="Hamming distance below which a prompt leaks")

    @model_validator(mode="after")
    def _shares_are_whole(self) -> Self:
        if not math.isclose(total := self.train + self.validation + self.test, 1, abs_tol=1e-9):
            raise ValueError(f"train, validation and test must add up to 1, not {exact(round(total, 9))}")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """The share of each split, in the order of `SPLITS`."""
        return {name: getattr(self, name) for name in SPLITS}


@step(
    makes=tables.PROMPT_SPLITS,
    reads=("prompt_id", "history", "prompt"),
    blocks=True,
    bound=bounds.as_many,
    fan_out=free("one row for each prompt"),
    libraries=("numba", "numpy"),
)
def prompt_splits(rows: pl.DataFrame | Blocks, args: Splitting, *, features: Features = Features()) -> Output:
    """Return the split of each prompt, in the order of the rows, with its `cluster`: the smallest `prompt_id` in it.

    Of a conversation all that the user says counts. Clusters of over a hundredth of the prompts are placed first, the
    largest before others, each into the split that is furthest below its share. All others stand in the order of a hash
    of the seed and the cluster's id, of which train gets the first, so that prompts that come or go move few others to
    another split. Raises ContractError for a null `prompt_id` or `prompt`, or a `prompt_id` with two prompts.
    """
    from normloom.near_duplicates.find import find_clusters
    from normloom.near_duplicates.simhash import fingerprints, pack

    prompts = _gathered(Blocks.of(rows, _AT_ONCE) if isinstance(rows, pl.DataFrame) else rows)
    packed = pack(said_by_user(prompts))
    codes = fingerprints(packed, features)
    labels = find_clusters(packed, features=features, tau=args.cluster_tau, jaccard=args.cluster_jaccard, codes=codes)
    labelled = prompts.select("prompt_id", label=pl.Series(labels, dtype=pl.Int64))
    clusters = labelled.group_by("label").agg(cluster=pl.col("prompt_id").min(), size=pl.len())
    placed = labelled.join(_filled(clusters, args), on="label", maintain_order="left").drop("label")
    return Output(
        rows=placed.with_columns(parents=prompts["row_id"]),
        attempts=placed.height,
        metrics={
            "leakage": _leakage(packed, codes, (placed["split"] == SPLITS[0]).to_numpy(), args, features),
            "clusters": clusters.height,
            "largest_cluster": max(clusters["size"], default=0),
            **{f"prompts_{name}": placed.filter(split=name).height for name in SPLITS},
        },
    )


@step(
    makes=tables.SPLIT,
    part_rows=2048,
    looks_up=("prompt_id",),
    side_reads=(("prompt_id", "split", "cluster"),),
    bound=bounds.as_many,
    fan_out=each(),
)
def split(rows: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with the `split` and `cluster` of their prompts."""
    placed = splits.select("prompt_id", "split", "cluster")
    return rows.drop("parents", strict=False).join(placed, on="prompt_id", how="left", maintain_order="left")


def in_order(names: Iterable[str]) -> list[str]:
    """Return the names of splits in the order of `SPLITS`, others after them by name."""
    return sorted(names, key=lambda name: (SPLITS.index(name) if name in SPLITS else len(SPLITS), name))


def _gathered(rows: Blocks) -> pl.DataFrame:
    """Return the prompts with the ids of their rows (column row_id)."""
    columns = [name for name in ("prompt_id", "prompt", "history") if name in rows.schema]
    some = (_runs(block, columns) for block in _whole_runs(rows))
    prompts = pl.concat([pl.DataFrame(schema=rows.schema).group_by(columns).agg("row_id"), *some])
    for column in ("prompt_id", "prompt"):
        if prompts[column].null_count():
            raise ContractError(f"column {column!r} has nulls: a row without it cannot be split")
    if prompts["prompt_id"].n_unique() == prompts.height:
        return prompts
    prompts = prompts.group_by(columns, maintain_order=True).agg(pl.col("row_id").explode())  # their rows stand apart
    if not (twice := prompts.filter(pl.col("prompt_id").is_duplicated())).is_empty():
        raise ContractError(f"prompt_id {twice['prompt_id'][0]!r} stands for more than one prompt")
    return prompts


def _runs(rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return each run of rows that are the same in some columns as one row, with their ids: texts are not hashed."""
    begins = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in columns)
    numbered = rows.with_columns(_run=begins.cum_sum().set_sorted())
    return numbered.group_by("_run", maintain_order=True).agg(pl.col(columns).first(), "row_id").drop("_run")


def _whole_runs(rows: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Yield the rows in blocks that part no run of rows of one prompt."""
    left: list[pl.DataFrame] = []
    for block in rows:
        runs = block["prompt_id"].rle_id()
        last = int(runs.search_sorted(runs[-1]))
        if last:
            yield pl.concat([*left, block[:last]])
            left = []
        left.append(block[last:])
    if left:
        yield pl.concat(left)


def _filled(clusters: pl.DataFrame, args: Splitting) -> pl.DataFrame:
    """Return the split of each cluster, given its label, id and size (columns label, cluster and split)."""
    import numpy as np

    total = int(clusters["size"].sum())
    lacking = {name: share * total for name, share in args.shares.items()}
    ordered = clusters.with_columns(order=_orders(args.seed, clusters["cluster"])).sort("order")
    is_large = pl.col("size") > _LARGE * total
    large = ordered.filter(is_large).sort("size", descending=True, maintain_order=True)
    splits = []
    for size in large["size"]:
        splits.append(max(lacking, key=lacking.__getitem__))
        lacking[splits[-1]] -= size
    others = ordered.filter(~is_large)
    room = {name: max(share, 0.0) for name, share in lacking.items()}
    left = total - int(large["size"].sum())
    ends = [left * end / sum(room.values()) for end in accumulate(room.values())] if left else []
    middles = (others["size"].cum_sum() - others["size"]) + others["size"] / 2
    found = np.minimum(np.searchsorted(ends, middles.to_numpy(), side="right"), len(SPLITS) - 1)
    chosen = pl.concat([pl.Series(splits, dtype=pl.String), pl.Series(SPLITS).gather(found)])
    return pl.concat([large, others]).select("label", "cluster", split=chosen)


def _orders(seed: int, clusters: pl.Series) -> pl.Series:
    """Return for each cluster a hash of the seed and its id."""
    begun = hashlib.blake2b(f"{seed}\x1f".encode(), digest_size=16)

    def order_of(cluster: bytes) -> bytes:
        hasher = begun.copy()
        hasher.update(cluster)
        return hasher.digest()

    return pl.Series(map(order_of, clusters.cast(pl.Binary)), dtype=pl.Binary)


def _leakage(
    texts: FlatTexts,
    codes: npt.NDArray[np.uint64],
    train: npt.NDArray[np.bool_],
    args: Splitting,
    features: Features,
) -> float:
    """Return the share of prompts outside `train` (n bools) that have a near neighbour in it."""
    import numpy as np

    from normloom.near_duplicates.find import pair_chunks
    from normloom.near_duplicates.simhash import jaccards

    leaked = np.zeros(len(train), dtype=np.bool_)
    for left, right, _ in pair_chunks(codes, args.leakage_tau):
        across = train[left] != train[right]
        one, other = left[across], right[across]
        if args.cluster_jaccard > 0:
            near = jaccards(texts, one, other, features) >= args.cluster_jaccard
            one, other = one[near], other[near]
        leaked[np.where(train[one], other, one)] = True
    held_out = np.count_nonzero(~train)
    return float(np.count_nonzero(leaked) / held_out) if held_out else 0.0
