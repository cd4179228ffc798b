"""Removing near-duplicates: SimHash or MinHash finds the candidates, exact shingle Jaccard confirms them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from normloom.contract import Contract
from normloom.errors import ContractError
from normloom.features import Features
from normloom.stage import Output, Stage, dropped, dropped_frame
from normloom.text import normalise
from tasks.minhash import bands, find_similar

if TYPE_CHECKING:
    from normloom.near_duplicates import Duplicate
    from normloom.simhash import Packed

_BITS = 64


class Deduplication(BaseModel):
    """A row repeats a kept one when their codes differ in fewer than `tau` of 64 bits and their shingles
    have a Jaccard similarity of at least `jaccard` (0 asks for no confirmation: the rule of arXiv 2602.11305).
    With `within`, only rows with the same value in that column are compared.

    The method `minhash` asks for the Jaccard similarity alone, whatever the distance: it finds pairs that SimHash
    has far apart, but misses a row with a probability of up to 1 - `recall`, and takes many times as long.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tau: int = Field(default=10, ge=1, le=_BITS)
    jaccard: float = Field(default=0.5, ge=0, le=1)
    features: Features = Features()
    text_column: str = "prompt"
    within: str | None = None
    method: Literal["simhash", "minhash"] = "simhash"
    permutations: int = Field(default=128, ge=2, description="hashes of a MinHash sketch")
    recall: float = Field(default=0.99, gt=0, lt=1, description="of MinHash, for pairs at the threshold `jaccard`")

    @model_validator(mode="after")
    def _can_be_found(self) -> Self:
        if self.method == "minhash":
            bands(self.jaccard, permutations=self.permutations, recall=self.recall)
        return self


def remove_duplicates(rows: pl.DataFrame, arguments: Deduplication) -> Output:
    """Return the rows that repeat no earlier kept row, with their code in `fingerprint` (UInt64).

    Rows are taken in order, so originals must come before their expansions. A removed row names the
    nearest kept row (of `minhash`: the most similar one) as its winner; its payload says `distance` and
    `jaccard`. Reasons: `exact_duplicate` (same normalised text) and `near_duplicate`. Raises ContractError
    for a null text.
    """
    from normloom.simhash import fingerprints, pack

    if rows[arguments.text_column].null_count():
        raise ContractError(f"column {arguments.text_column!r} has nulls: a row without text cannot be compared")
    texts = rows[arguments.text_column].to_list()
    packed = pack(texts)
    groups = _groups(rows, arguments.within)
    duplicates = sorted(
        (duplicate for group in groups for duplicate in _duplicates(texts, group, packed, arguments)),
        key=lambda duplicate: duplicate.index,
    )
    removed = [duplicate.index for duplicate in duplicates]
    ids, entries = rows["row_id"], []
    for duplicate, row in zip(duplicates, rows[removed].iter_rows(named=True), strict=True):
        same = normalise(texts[duplicate.index]) == normalise(texts[duplicate.keeper])
        payload = {**row, "distance": duplicate.distance, "jaccard": duplicate.jaccard}
        winner = ids[duplicate.keeper]
        entries.append(dropped(payload, "exact_duplicate" if same else "near_duplicate", winner=winner))
    coded = rows.with_columns(fingerprint=pl.Series(fingerprints(packed, arguments.features), dtype=pl.UInt64))
    kept = coded.with_row_index("_position").filter(~pl.col("_position").is_in(removed)).drop("_position")
    metrics = {"duplicates": len(removed), "share": len(removed) / rows.height if rows.height else 0.0}
    if arguments.method == "simhash":
        metrics["expected_chance_pairs"] = sum(expected_chance_pairs(len(group), arguments.tau) for group in groups)
    return Output(
        rows=kept.drop("parents", strict=False),  # the parents of a kept row are that row; these are its own
        dropped=dropped_frame(entries),
        metrics=metrics,
    )


def _groups(rows: pl.DataFrame, within: str | None) -> list[list[int]]:
    """Return the places of the rows that are compared with each other."""
    if within is None:
        return [list(range(rows.height))]
    return rows.with_row_index("_place").group_by(within, maintain_order=True).agg("_place")["_place"].to_list()


def _duplicates(
    texts: Sequence[str], group: Sequence[int], packed: Packed, arguments: Deduplication
) -> list[Duplicate]:
    """Return the duplicates among the rows at the places `group`."""
    from normloom.near_duplicates import find_duplicates
    from normloom.simhash import fingerprints, pack

    some = packed if len(group) == len(texts) else pack([texts[place] for place in group])
    features, jaccard = arguments.features, arguments.jaccard
    if arguments.method == "minhash":
        found = find_similar(
            some,
            fingerprints(some, features),
            features=features,
            jaccard=jaccard,
            permutations=arguments.permutations,
            recall=arguments.recall,
        )
    else:
        found = find_duplicates(some, features=features, tau=arguments.tau, jaccard=jaccard)
    return [replace(duplicate, index=group[duplicate.index], keeper=group[duplicate.keeper]) for duplicate in found]


def expected_chance_pairs(n: int, tau: int) -> float:
    """Return how many pairs of n independent random 64-bit codes differ in fewer than `tau` bits.

    n (n - 1) / 2 pairs, each with probability (C(64, 0) + ... + C(64, tau - 1)) / 2**64. Real codes are less
    even than random ones, so this is a lower bound on the false pairs that only Jaccard can tell.
    """
    near = sum(math.comb(_BITS, bits) for bits in range(tau))
    return math.comb(n, 2) * (near / (1 << _BITS))


def deduplicate(
    inputs: Sequence[Stage], *, arguments: Deduplication, contract: Contract, name: str = "deduplicate"
) -> Stage:
    """Return the stage that removes near-duplicates from the inputs, earlier inputs first."""
    return Stage(name=name, function=remove_duplicates, arguments=arguments, contract=contract, inputs=tuple(inputs))
