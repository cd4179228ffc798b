"""How a product that is a model was trained: from which base, on how many rows, with which settings, and its curve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from normloom.core.table import Manifest
from normloom.lineage.trained import learned_from, models_of
from normloom.store.store import Store

STEP = "step"  # column of a curve that numbers its rows
FIRST = "loss"  # figure of a curve that is shown first
POINTS = 60  # of a curve that is drawn


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The rows of a product by step: columns `step` (integer, ascending) and its figures (float)."""

    rows: pl.DataFrame

    @property
    def figures(self) -> Sequence[str]:
        """The names of the figures, the loss first if there is one."""
        return sorted((name for name in self.rows.columns if name != STEP), key=lambda name: name != FIRST)

    @property
    def each(self) -> int:
        """How many rows a drawn point stands for."""
        return -(-self.rows.height // POINTS)

    def points(self, figure: str) -> list[tuple[int, float]]:
        """Return at most `POINTS` points of a figure: the mean of neighbouring rows at the last step of these."""
        row = pl.int_range(pl.len()) // self.each
        known = self.rows.select(STEP, figure, position=row).filter(pl.col(figure).is_finite())
        means = known.group_by("position", maintain_order=True).agg(pl.col(STEP).last(), pl.col(figure).mean())
        return list(means.select(STEP, figure).iter_rows())


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """What a trained model came from: `bases` are model identities by the name of the argument that gave them.

    `through` are the products that the bases are made of, `learned_from` counts rows by table, `settings` are the
    arguments of the step by path.
    """

    product: str
    files: int
    bytes: int
    bases: Mapping[str, Mapping[str, str]]
    through: Sequence[str]
    learned_from: Mapping[str, int]
    settings: Mapping[str, Any]
    curve: Curve | None

    @property
    def base_names(self) -> list[str]:
        """The bases as people name them."""
        return [
            ", ".join(self.through) if base["model"] == "product" else base["model"] for base in self.bases.values()
        ]


def training_of(store: Store, manifest: Manifest) -> TrainingRecord | None:
    """Return how a product was trained; None for a table without files, and for files of another kind.

    A product counts as trained if its step was handed a model, or if its rows are a curve.
    """
    if not manifest.attached:
        return None
    arguments = manifest.key_fields["arguments"]
    bases = {name: value for name, value in arguments.items() if _is_model(value)}
    curve = _curve(store, manifest)
    if not bases and not curve:
        return None
    return TrainingRecord(
        product=manifest.product,
        files=len(manifest.attached),
        bytes=manifest.attached_bytes,
        bases=bases,
        through=[str(ref) for ref in models_of(manifest)],
        learned_from=learned_from(store, manifest)[0],
        settings=dict(_flat({name: value for name, value in arguments.items() if name not in bases})),
        curve=curve,
    )


def _is_model(value: Any) -> bool:
    """Return whether an argument is a model's identity."""
    return isinstance(value, Mapping) and value.keys() >= {"engine", "model"}


def _curve(store: Store, manifest: Manifest) -> Curve | None:
    rows = store.scan(manifest.ref)
    schema = rows.collect_schema()
    figures = [name for name, kind in schema.items() if kind.is_float()]
    if STEP not in schema or not schema[STEP].is_integer() or not figures or not manifest.count("rows"):
        return None
    return Curve(rows=rows.select(STEP, *figures).sort(STEP).collect())


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{name}.")
        else:
            yield path + name, value
