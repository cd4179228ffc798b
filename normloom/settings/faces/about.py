"""The text of a system's data set card, which no table holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from normloom.core.formats.yaml_text import load_yaml
from normloom.history.terms import SourceTerms

CARDS = Path(__file__).parent.parent.parent / "schemas" / "cards"


class Limit(BaseModel):
    """A known limit of a release; with `stage` only of builds that have a stage of this name."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    text: str
    stage: str | None = None


class About(BaseModel):
    """The words of a card.

    `tasks` are task categories of the Hugging Face hub. `builtin` are the terms of the system's built-in data, and
    `origin` says where that is from. `columns` describe columns of the release; those of other
    tables are described once for all systems, in `schemas/cards/tables.yaml`, by the name of the stage.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    summary: str = ""
    tasks: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    warning: str = ""
    intended: str = ""
    not_for: str = ""
    origin: str = ""
    builtin: SourceTerms | None = None
    personal: str = ""
    limits: tuple[Limit, ...] = ()
    columns: Mapping[str, str] = {}
    citation: str = ""

    def meanings(self, stage: str, columns: Collection[str], *, release: bool) -> Mapping[str, str]:
        """Return the known meanings of a released table's columns."""
        if release:
            return self.columns
        known = _tables()
        figures = known["figures"] if set(known["figures"]) <= set(columns) else {}
        return known.get(stage, figures)

    @classmethod
    def of(cls, name: str) -> Self:
        """Return the words in `schemas/cards/NAME.yaml`."""
        return cls.model_validate(load_yaml((CARDS / f"{name}.yaml").read_text(encoding="utf-8")))


@cache
def _tables() -> dict[str, dict[str, str]]:
    tables: dict[str, dict[str, str]] = load_yaml((CARDS / "tables.yaml").read_text(encoding="utf-8"))
    return tables
