"""Rows without those that repeat another, which `tasks/duplicates/duplicates.py` finds."""

from __future__ import annotations

from typing import Literal, Self

import polars as pl
from pydantic import Field, model_validator

from normloom.core.errors import ContractError
from normloom.core.fan_out import each
from normloom.core.stage import Output, dropped_rows
from normloom.near_duplicates.features import Features
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.duplicates.minhash import bands


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


@step(part_rows=2048, looks_up=("duplicate_id",), bound=bounds.as_many, fan_out=each(), libraries=("numba", "numpy"))
def deduplicate(
    rows: pl.DataFrame,
    duplicates: pl.DataFrame,
    *,
    features: Features = Features(),
    column: str = "prompt",
    without: tuple[str, ...] = (),
) -> Output:
    """Return the rows that are no `duplicates`, with their code in `fingerprint` (UInt64), without some columns.

    The ledger has a removed row's winner and reason, and its payload what else the table of duplicates says. Raises
    ContractError if the rows have a column `duplicate_id`, too.
    """
    from normloom.near_duplicates.simhash import fingerprints, pack

    if "duplicate_id" in rows.columns:
        raise ContractError("rows have a column 'duplicate_id', by which duplicates are looked up: rename it")
    found = duplicates.drop("parents", strict=False).rename({"row_id": "_id"}, strict=False)
    told = rows.select(duplicate_id="row_id").join(found, on="duplicate_id", how="left", maintain_order="left")
    goes = told["winner"].is_not_null()
    kept = rows.filter(~goes).drop("parents", *without, strict=False)
    codes = pl.Series("fingerprint", fingerprints(pack(kept[column]), features), dtype=pl.UInt64)
    gone = rows.filter(goes).with_columns(
        told.filter(goes).drop("duplicate_id", "_id", strict=False).rename({"winner": "_winner", "reason": "_reason"})
    )
    ledger = dropped_rows(gone, reason=pl.col("_reason"), winner=pl.col("_winner"), leaving_out=["_winner", "_reason"])
    return Output(kept.with_columns(codes), dropped=ledger)
