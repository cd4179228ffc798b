"""Which rows repeat an earlier one: SimHash or MinHash finds the candidates, exact shingle Jaccard confirms them.

By sentence vectors: `tasks/duplicates/by_meaning.py`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from normloom.core.errors import ContractError
from normloom.core.fan_out import free
from normloom.core.rows.text import normalise
from normloom.core.stage import Output
from normloom.near_duplicates.features import Features
from normloom.schemas import tables
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.duplicates.deduplicate import Deduplication
from normloom.tasks.duplicates.minhash import find_similar

if TYPE_CHECKING:
    from normloom.near_duplicates.kernels.texts import FlatTexts

_BITS = 64
_CHECKED = 64  # known rows whose codes are made again, to see that they are of the same features
FAN_OUT = free("one row for each that repeats another")


def sufficient(jaccard: float, alike: float) -> float | None:
    """Return the Jaccard similarity that suffices whatever the distance; None if codes alone decide."""
    return max(jaccard, alike) if jaccard else None


def columns_compared(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns that say whether a row repeats another."""
    return ("history", given["column"], *((given["within"],) if given["within"] else ()))


@step(
    makes=tables.DUPLICATES,
    reads=columns_compared,
    bound=bounds.as_many,
    fan_out=FAN_OUT,
    libraries=("datasketch", "numba", "numpy"),
)
def duplicates(
    rows: pl.DataFrame | pl.LazyFrame,
    args: Deduplication,
    known: pl.DataFrame | None = None,
    *,
    column: str = "prompt",
    within: str | None = None,
) -> Output:
    """Return a row for each that repeats an earlier one: its id (`duplicate_id`) and that of its `winner`, which stays.

    Rows are taken in order, so originals must come before their expansions. The winner is the nearest row that stays
    (of `minhash`: the most similar one), with their `distance` and `jaccard`. Reasons: `exact_duplicate` (same
    normalised text) and `near_duplicate`.

    `known` is a table of `deduplicate`: all its rows stay, and a row that repeats one of them goes. Their `fingerprint`
    is taken unchanged.

    With `within`, only rows with the same value in that column are compared. Prompts of conversations are compared
    if what was said before them is the same: an equal last turn in another conversation is another prompt.

    Of a lazy frame no more is held than the texts in normal form while rows are compared.

    Raises ContractError for a null text, and for codes of other features.
    """

    def compared(some: pl.DataFrame, stored: int, packed: FlatTexts | None) -> pl.DataFrame:
        return _duplicates(some, stored, packed, column, args)

    return found_among(rows, args, known, compared, column=column, within=within)


def found_among(
    rows: pl.DataFrame | pl.LazyFrame,
    args: Deduplication,
    known: pl.DataFrame | None,
    compared: Callable[[pl.DataFrame, int, FlatTexts | None], pl.DataFrame],
    *,
    column: str,
    within: str | None,
    reads: Sequence[str] = (),
) -> Output:
    """Return what `duplicates` does, by a function that finds the duplicates.

    It is given rows that are compared (known ones first), how many of them are known, and their texts, normalised, if
    they are at hand; it returns what `find_duplicates` does, maybe with more columns. The rows have their codes and the
    columns that it `reads`; id and text, too, if their texts are not at hand.
    """
    from normloom.near_duplicates.simhash import fingerprints, pack

    table = rows.lazy()
    texts = _column(table, column)
    if texts.null_count():
        raise ContractError(f"column {column!r} has nulls: a row without text cannot be compared")
    packed = pack(texts)
    del texts  # of a lazy frame nothing else holds them
    codes = pl.Series("fingerprint", fingerprints(packed, args.features), dtype=pl.UInt64)
    apart, stored, count = compared_within(rows, within), 0, len(codes)
    every = table.select("row_id", column, *apart)
    if known is not None:
        _require_features(known, column, args.features)
        every, stored = pl.concat([known.lazy().select(every.collect_schema().names()), every]), known.height
        codes = pl.concat([known["fingerprint"], codes])
    groups = _groups(every.select(apart).collect(), len(codes))
    at_hand = len(groups) == 1 and not stored
    held = every.select(reads if at_hand else ["row_id", column]).collect()
    found = _found(pl.DataFrame([*held, codes]), groups, stored, packed if at_hand else None, compared)
    del packed, held
    metrics = {"duplicates": len(found), "share": len(found) / count if count else 0.0}
    if args.method == "simhash":
        metrics["expected_chance_pairs"] = sum(_chance_pairs(group, stored, args.tau) for group in groups)
    return Output(_told(found, every, column), attempts=len(found), metrics=metrics)


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
    """Return the rows of the table: ids in place of indices, and the reason."""
    same = (found["jaccard"] == 1) & (found["distance"] == 0)  # as equal texts are
    texts = _column(every, column)
    pairs = zip(*(texts.gather(found[name].filter(same)) for name in ("index", "keeper")), strict=True)
    equal = pl.Series([normalise(one) == normalise(other) for one, other in pairs], dtype=pl.Boolean)
    ids = _column(every, "row_id")
    own = ids.gather(found["index"])
    return pl.DataFrame(
        {
            "row_id": own,
            "duplicate_id": own,
            "winner": ids.gather(found["keeper"]),
            "reason": pl.Series(["near_duplicate", "exact_duplicate"]).gather(
                same.scatter(same.arg_true(), equal).cast(pl.UInt8)
            ),
            **found.drop("index", "keeper").to_dict(),
        }
    )


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
