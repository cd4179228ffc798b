"""Models in a trace: those that wrote its rows, and those that learned from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

import polars as pl

from normloom.core.table import Manifest, TableRef
from normloom.store.store import Store

SAMPLE = 3  # ids of rows that a model learned from, from which a trace may continue

StageOf = tuple[str, str]  # system and stage


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A product that is a model: the tables that it wrote, and the numbers of rows that it learned from, by table.

    `rows` are ids of rows that it learned from: those on the way if the trace goes forward, else the first few.
    """

    product: str
    wrote: tuple[str, ...]
    learned_from: Mapping[str, int]
    rows: tuple[str, ...]


def writers(store: Store, way: Mapping[StageOf, Set[str]]) -> Iterator[Trained]:
    """Yield the products that wrote rows on the way (ids by table), each once."""
    wrote: dict[TableRef, list[str]] = {}
    for one in way:
        if manifest := store.current(*one):
            for ref in models_of(manifest):
                wrote.setdefault(ref, []).append("/".join(one))
    for ref, tables in wrote.items():
        if product := store.published(ref.system, ref.stage, ref.key):
            yield _trained(store, product, tables, None)


def learners(store: Store, way: Mapping[StageOf, Set[str]]) -> Iterator[Trained]:
    """Yield the newest products that learned from rows on the way (ids by table), with the tables they wrote."""
    newest = [manifest for system in store.systems() for manifest in store.newest(system)]
    for product in newest:
        if not product.attached:
            continue
        read = [way[ref.system, ref.stage] for ref in product.inputs if (ref.system, ref.stage) in way]
        if seen := set().union(*read) - _left_out(store, product):
            wrote = [f"{one.system}/{one.stage}" for one in newest if product.ref in models_of(one)]
            yield _trained(store, product, wrote, sorted(seen))


def models_of(manifest: Manifest) -> list[TableRef]:
    """Return the products that are models of a table."""
    count = int(manifest.key_fields.get("products", 0))
    return list(manifest.sides[-count:]) if count else []


def learned_from(store: Store, product: Manifest) -> tuple[dict[str, int], list[str]]:
    """Return how many rows of which tables a product learned from, and the ids of the first few.

    Rows that its step took out do not count; tables that are no longer in the store are left out.
    """
    gone = _left_out(store, product)
    learned: dict[str, int] = {}
    sample: list[str] = []
    for ref in product.inputs:
        if store.published(ref.system, ref.stage, ref.key):
            ids = store.scan(ref).select("row_id").collect()["row_id"].to_list()
            kept = [row_id for row_id in ids if row_id not in gone]
            learned[f"{ref.system}/{ref.stage}"] = len(kept)
            sample += kept[:SAMPLE]
    return learned, sample


def _trained(store: Store, product: Manifest, wrote: Iterable[str], rows: list[str] | None) -> Trained:
    learned, sample = learned_from(store, product)
    return Trained(
        product=str(product.ref), wrote=tuple(wrote), learned_from=learned, rows=tuple(sample if rows is None else rows)
    )


def _left_out(store: Store, product: Manifest) -> set[str]:
    """Return the input rows that the step that trained took out."""
    ledgers = [store.scan(product.ref, kind).select(pl.col("row_id")).collect() for kind in ("dropped", "quarantined")]
    return {row_id for ledger in ledgers for row_id in ledger["row_id"]}
