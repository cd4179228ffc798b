"""Removing near-duplicates: SimHash or MinHash finds the candidates, exact shingle Jaccard confirms them.

By sentence vectors: `tasks/duplicates/by_meaning.py`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from normloom.core.errors import ContractError
from normloom.core.fan_out import each
from normloom.core.rows.text import normalise
from normloom.core.stage import Output, dropped_rows
from normloom.near_duplicates.features import Features
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.duplicates.minhash import bands, find_similar

if TYPE_CHECKING:
    from normloom.near_duplicates.kernels.texts import FlatTexts

_BITS = 64
_BLOCK = 1 << 18  # rows read at once by the second pass
_CHECKED = 64  # known rows whose codes are made again, to see that they are of the same features


class Deduplication(Args):
    """A row repeats a kept one when their codes differ in fewer than `tau` of 64 bits and their shingles
    have a Jaccard similarity of at least `jaccard` (0 asks for no confirmation: the rule of arXiv 2602.11305);
    or when that similarity is at least `alike`, whatever the distance: codes of texts that differ in a word are apart
    by chance, so of prompts of one template some would be removed by chance.

    The method `minhash` asks for the Jaccard similarity alone, whatever the distance: it finds pairs that SimHash
    has far apart, but misses a row with a probability of up to 1 - `recall`, and takes many times as long.

    The method `embedding` compares sentence vectors: a row repeats a kept one when their cosine is at least
    `similarity`, whatever their words. It finds paraphrases, and takes a product of vectors for each pair of rows.
    """

    tau: int = Field(10, ge=1, le=17, description="Hamming distance below which two prompts are near-duplicates")
    jaccard: float = Field(0.5, ge=0, le=1, description="confirmation by shingle Jaccard; 0 is the paper's rule")
    alike: float = Field(
        0.8, ge=0.5, le=1, description="shingle Jaccard that suffices whatever the distance, unless jaccard is 0"
    )
    features: Features = Features()
    method: Literal["simhash", "minhash", "embedding"] = Field(
        "simhash", description="minhash: Jaccard similarity alone; embedding: sentence vectors, for paraphrases"
    )
    permutations: int = Field(128, ge=2, description="minhash: hashes of a sketch")
    recall: float = Field(0.99, gt=0, lt=1, description="minhash: recall of pairs at the threshold jaccard")
    similarity: float = Field(
        0.92, gt=0, le=1, description="embedding: cosine from which two prompts are near-duplicates"
    )
    block: int | None = Field(
        None,
        ge=1,
        exclude=True,
        description="simhash: texts in a block, if tasks of the Ray cluster find the pairs; null: they do not",
    )

    @model_validator(mode="after")
    def _can_be_found(self) -> Self:
        if self.method == "minhash":
            bands(self.jaccard, permutations=self.permutations, recall=self.recall)
        return self


def sufficient(jaccard: float, alike: float) -> float | None:
    """Return the Jaccard similarity that suffices whatever the distance; None if codes alone decide."""
    return max(jaccard, alike) if jaccard else None


def columns_compared(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns that say whether a row repeats another."""
    return ("history", given["column"], *((given["within"],) if given["within"] else ()))


@step(
    reads=columns_compared,
    carries=True,
    bound=bounds.as_many,
    fan_out=each(),
    libraries=("datasketch", "numba", "numpy"),
)
def deduplicate(
    rows: pl.DataFrame | pl.LazyFrame,
    args: Deduplication,
    known: pl.DataFrame | None = None,
    *,
    column: str = "prompt",
    within: str | None = None,
) -> Output:
    """Return the rows that repeat no earlier kept row, with their code in `fingerprint` (UInt64).

    Rows are taken in order, so originals must come before their expansions. A removed row names the
    nearest kept row (of `minhash`: the most similar one) as its winner; its payload says `distance` and
    `jaccard`. Reasons: `exact_duplicate` (same normalised text) and `near_duplicate`.

    `known` is a table that this task made before: all its rows stay, and a row that repeats one of them goes. Their
    `fingerprint` is taken unchanged.

    With `within`, only rows with the same value in that column are compared. Prompts of conversations are compared
    if what was said before them is the same: an equal last turn in another conversation is another prompt.

    Of a lazy frame no more is held than the texts in normal form while rows are compared, and then what is returned.

    Raises ContractError for a null text, and for codes of other features.
    """

    def duplicates(some: pl.DataFrame, stored: int, packed: FlatTexts | None) -> pl.DataFrame:
        return _duplicates(some, stored, packed, column, args)

    return removal(rows, args, known, duplicates, column=column, within=within)


def removal(
    rows: pl.DataFrame | pl.LazyFrame,
    args: Deduplication,
    known: pl.DataFrame | None,
    duplicates: Callable[[pl.DataFrame, int, FlatTexts | None], pl.DataFrame],
    *,
    column: str,
    within: str | None,
    reads: Sequence[str] = (),
) -> Output:
    """Return what `deduplicate` does, by a function that finds the duplicates.

    It is given rows that are compared (known ones first), how many of them are known, and their texts, normalised, if
    they are at hand; it returns what `find_duplicates` does, maybe with more columns. The rows have their codes and the
    columns that it `reads`; id and text, too, if their texts are not at hand.
    """
    import numpy as np

    from normloom.near_duplicates.simhash import fingerprints, pack

    table = rows.lazy()
    texts = _column(table, column)
    if texts.null_count():
        raise ContractError(f"column {column!r} has nulls: a row without text cannot be compared")
    packed = pack(texts)
    del texts  # of a lazy frame nothing else holds them
    codes = pl.Series("fingerprint", fingerprints(packed, args.features), dtype=pl.UInt64)
    apart, stored = compared_within(rows, within), 0
    every = table.select("row_id", column, *apart)
    if known is not None:
        _require_features(known, column, args.features)
        every, stored = pl.concat([known.lazy().select(every.collect_schema().names()), every]), known.height
    groups = _groups(every.select(apart).collect(), stored + len(codes))
    at_hand = len(groups) == 1 and not stored
    held = every.select(reads if at_hand else ["row_id", column]).collect()
    coded = codes if known is None else pl.concat([known["fingerprint"], codes])
    compared = pl.DataFrame([*held, coded])
    found = _found(compared, groups, stored, packed if at_hand else None, duplicates)
    del packed, held, compared  # the ledger takes as much
    stays = np.ones(len(codes), dtype=np.bool_)
    stays[found["index"] - stored] = False
    kept, dropped = _parted(table, pl.Series(stays), codes, _told(found, every, column))
    metrics = {"duplicates": len(found), "share": len(found) / len(codes) if len(codes) else 0.0}
    if args.method == "simhash":
        metrics["expected_chance_pairs"] = sum(_chance_pairs(group, stored, args.tau) for group in groups)
    return Output(rows=kept, dropped=dropped, metrics=metrics)


def _column(table: pl.LazyFrame, name: str) -> pl.Series:
    return table.select(name).collect()[name]


def _codes(texts: pl.Series, features: Features) -> pl.Series:
    from normloom.near_duplicates.simhash import fingerprints

    return pl.Series(fingerprints(texts.to_list(), features), dtype=pl.UInt64)


def _require_features(known: pl.DataFrame, column: str, features: Features) -> None:
    """Compare the codes of some rows: those of other features nearly all differ."""
    some = known.head(_CHECKED)
    if _codes(some[column], features).to_list() != some["fingerprint"].to_list():
        raise ContractError("the known rows' column 'fingerprint' was made from other features or another text")


def compared_within(rows: pl.DataFrame | pl.LazyFrame, within: str | None) -> list[str]:
    """Return the columns in which two rows must agree to be compared."""
    there = rows.collect_schema().names()
    return [name for name in (within, "history") if name in there]


def _groups(apart: pl.DataFrame, count: int) -> Sequence[Sequence[int]]:
    """Return the places of the rows, `count` of them, that are compared with each other: those that agree."""
    if all(column.null_count() == count for column in apart):
        return [range(count)]
    return apart.with_row_index("_at").group_by(apart.columns, maintain_order=True).agg("_at")["_at"].to_list()


def _found(
    rows: pl.DataFrame,
    groups: Sequence[Sequence[int]],
    stored: int,
    packed: FlatTexts | None,
    duplicates: Callable[[pl.DataFrame, int, FlatTexts | None], pl.DataFrame],
) -> pl.DataFrame:
    """Return the duplicates in all groups, in order; `packed` are the texts of all rows if these are one group."""
    from normloom.near_duplicates.find import DUPLICATES

    found = [pl.DataFrame(schema=DUPLICATES)]
    for group in groups:
        if len(group) < 2:  # noqa: PLR2004  # a pair
            continue
        if len(group) == rows.height:
            found.append(duplicates(rows, stored, packed))
            continue
        places = pl.Series(group, dtype=pl.Int64)
        some = duplicates(rows[group], bisect_left(group, stored), None)
        found.append(some.with_columns(places.gather(some[name]).alias(name) for name in ("index", "keeper")))
    return pl.concat(found, how="diagonal").sort("index")


def _duplicates(
    rows: pl.DataFrame, stored: int, packed: FlatTexts | None, column: str, args: Deduplication
) -> pl.DataFrame:
    """Return the duplicates among the rows; the first `stored` all stay."""
    from normloom.near_duplicates.find import find_duplicates, find_known
    from normloom.near_duplicates.ray.removal import shared_duplicates
    from normloom.near_duplicates.simhash import pack

    codes = rows["fingerprint"].to_numpy()
    features, tau, jaccard = args.features, args.tau, args.jaccard
    alike = sufficient(jaccard, args.alike)
    if stored and args.method == "simhash":
        new, known = rows[column][stored:].to_list(), rows[column][:stored].to_list()
        found = find_known(new, known, codes[:stored], features=features, tau=tau, jaccard=jaccard, alike=alike)
        return found.with_columns(pl.col("index") + stored)
    packed = packed or pack(rows[column])
    if args.method == "minhash":
        return find_similar(
            packed,
            codes,
            features=features,
            jaccard=jaccard,
            permutations=args.permutations,
            recall=args.recall,
            known=stored,
        )
    if args.block and rows.height > args.block:
        return shared_duplicates(
            packed, codes=codes, features=features, tau=tau, jaccard=jaccard, alike=alike, block=args.block
        )
    return find_duplicates(packed, codes=codes, features=features, tau=tau, jaccard=jaccard, alike=alike)


def _told(found: pl.DataFrame, every: pl.LazyFrame, column: str) -> pl.DataFrame:
    """Return what was found of each duplicate, its `_winner`, and whether the texts of both are the `_same`."""
    alike = (found["jaccard"] == 1) & (found["distance"] == 0)  # as equal texts are
    texts = _column(every, column)
    pairs = zip(*(texts.gather(found[name].filter(alike)) for name in ("index", "keeper")), strict=True)
    equal = pl.Series([normalise(one) == normalise(other) for one, other in pairs], dtype=pl.Boolean)
    return found.drop("index", "keeper").with_columns(
        _winner=_column(every, "row_id").gather(found["keeper"]), _same=alike.scatter(alike.arg_true(), equal)
    )


def _parted(
    table: pl.LazyFrame, stays: pl.Series, codes: pl.Series, told: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows that stay, with their codes, and the ledger of the others; the table is read in blocks."""
    kept, dropped = [], []
    reason = pl.when("_same").then(pl.lit("exact_duplicate")).otherwise(pl.lit("near_duplicate"))
    for start in range(0, max(len(stays), 1), _BLOCK):
        some, stay = table.slice(start, _BLOCK).collect(), stays.slice(start, _BLOCK)
        gone = some.filter(~stay)
        gone, told = gone.with_columns(told.head(gone.height)), told.slice(gone.height)
        dropped.append(dropped_rows(gone, reason=reason, winner=pl.col("_winner"), leaving_out=["_winner", "_same"]))
        own = some.drop("parents", strict=False).filter(stay)  # its parent is that row
        kept.append(own.with_columns(codes.slice(start, _BLOCK).filter(stay)))
    return pl.concat(kept), pl.concat(dropped)


def _chance_pairs(group: Sequence[int], stored: int, tau: int) -> float:
    """Return the chance pairs with a new row."""
    return expected_chance_pairs(len(group), tau) - expected_chance_pairs(bisect_left(group, stored), tau)


def expected_chance_pairs(n: int, tau: int) -> float:
    """Return how many pairs of n independent random 64-bit codes differ in fewer than `tau` bits.

    n (n - 1) / 2 pairs, each with probability (C(64, 0) + ... + C(64, tau - 1)) / 2**64. Real codes are less
    even than random ones, so this is a lower bound on the false pairs that only Jaccard can tell.
    """
    near = sum(math.comb(_BITS, bits) for bits in range(tau))
    return math.comb(n, 2) * (near / (1 << _BITS))
