"""The result of a build."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Literal

import polars as pl

from normloom.core.rows.text import counted
from normloom.core.table import Manifest
from normloom.run.build import BuildResult
from normloom.store.store import Store


class Result:
    """The tables of a finished build; frames are lazy and read from the store.

    `rows` is the released table, `tables` has all tables by stage. `dropped` and `quarantined` are the ledgers of all
    stages, with a column `stage`.
    """

    def __init__(self, built: BuildResult, store: Store) -> None:
        self.built, self.store = built, store
        self.manifests: Mapping[str, Manifest] = {manifest.stage: manifest for manifest in built.manifests}

    @property
    def system(self) -> str:
        """The name of the system or flow."""
        return self.built.system

    @property
    def manifest(self) -> Manifest:
        """The manifest of the released table; raises UsageError if the build left it out."""
        return self.built.released

    @property
    def rows(self) -> pl.LazyFrame:
        """The rows of the released table."""
        return self.store.scan(self.manifest.ref)

    @property
    def tables(self) -> dict[str, pl.LazyFrame]:
        """The rows of each stage."""
        return {name: self.store.scan(manifest.ref) for name, manifest in self.manifests.items()}

    @property
    def dropped(self) -> pl.LazyFrame:
        """Rows removed by the method: stage, row_id, reason, winner, payload."""
        return self._ledger("dropped")

    @property
    def quarantined(self) -> pl.LazyFrame:
        """Rows removed by checks and errors: stage, row_id, rule, reason, payload."""
        return self._ledger("quarantined")

    @property
    def reused(self) -> frozenset[str]:
        """The stages whose tables already existed."""
        return self.built.reused

    def _ledger(self, kind: Literal["dropped", "quarantined"]) -> pl.LazyFrame:
        return pl.concat(
            self.store.scan(manifest.ref, kind).select(pl.lit(name).alias("stage"), pl.all())
            for name, manifest in self.manifests.items()
        )

    def __getitem__(self, stage: str) -> pl.LazyFrame:
        """Return the rows of a stage; raises KeyError for an unknown stage."""
        return self.store.scan(self.manifests[stage].ref)

    def _counts(self) -> list[tuple[str, int, int, int, str]]:
        return [
            (
                name,
                *(manifest.count(kind) for kind in ("rows", "dropped", "quarantined")),  # type: ignore[misc]  # three counts
                "reused" if name in self.reused else "made",
            )
            for name, manifest in self.manifests.items()
        ]

    def __repr__(self) -> str:
        made = len(self.manifests) - len(self.reused & set(self.manifests))
        released = counted(self.manifest.count("rows")) if self.built.end in self.manifests else "nothing released"
        return (
            f"<Result of {self.system}: {released}; {made} of {len(self.manifests)} tables made, in {self.store.root}>"
        )

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("table", "rows", "dropped", "quarantined", ""))
        lines = "".join(
            "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in line) + "</tr>" for line in self._counts()
        )
        return f"<p>{escape(repr(self)[1:-1])}</p><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
