"""What a card is written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from normloom.exports.card.changes import ReleaseChange
from normloom.exports.origins import Rights
from normloom.exports.tables import Written
from normloom.history.releases import ReleaseRecord
from normloom.report.material import Material
from normloom.settings.faces.about import About


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card is written from; `tables` has the release first, `before` what other systems made
    for it. `repository` is where it will be on a hub, `audit` has the figures that people's answers corrected."""

    material: Material
    about: About
    rights: Rights
    release: ReleaseRecord
    tables: Sequence[Written]
    changes: Sequence[ReleaseChange]
    before: Sequence[Material]
    command: str
    repository: str | None = None
    audit: pl.DataFrame | None = None

    @property
    def name(self) -> str:
        """The title of the data set."""
        return self.material.title

    def meanings(self, written: Written) -> Mapping[str, str]:
        """Return what the columns of a table mean, as far as it is known."""
        stage = written.shown.ref.stage
        return self.about.meanings(stage, written.schema.names, release=stage == self.release.stage)

    @property
    def materials(self) -> list[Material]:
        """The tables of the build, then those of other systems that led to them."""
        return [self.material, *self.before]

    @property
    def language(self) -> list[str]:
        """The languages of the sources, each once."""
        return list(dict.fromkeys(code for origin in self.rights.origins for code in origin.terms.language))
