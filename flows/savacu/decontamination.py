"""A release without the items of benchmarks, for every system that releases text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field, model_validator

from normloom.core.stage import Stage
from normloom.readers import Located, ReadOptions, locate
from normloom.readers.remote.fetch import shown
from normloom.settings.config import Settings
from normloom.settings.source_settings import SourceName
from normloom.tasks.release.contamination import (
    Matching,
    benchmark_items,
    contamination_figures,
    decontaminate,
    find_contamination,
)

RELEASED_TEXTS = ("history", "prompt", "response")


class Benchmark(Settings):
    """A benchmark whose items a release must not have: a name alone, or how it is read too."""

    path: SourceName = Field(description="file, folder, pattern, URL or data set on a hub")
    text_column: str | None = Field(None, description="column of the items' texts; null: prompt, question, ...")
    subset: str | None = Field(None, description="subset of a data set on the Hugging Face hub")
    split: str | None = Field(None, description="split of a data set on the hub or on disk")
    field: str | None = Field(None, description="JSON files: where the array of records is")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        return given if isinstance(given, dict | Benchmark) else {"path": given}

    def located(self) -> Located:
        """Return the files; raises SourceError."""
        return locate(self.path, ReadOptions(subset=self.subset, split=self.split, field=self.field))

    @property
    def name(self) -> str:
        """What rows call it: the name of the file, or the id on a hub; with the subset if there is one."""
        name = shown(self.path).rstrip("/")
        name = name.partition("://")[2] if "://" in name else name.rpartition("/")[2]
        return f"{name}/{self.subset}" if self.subset else name


class Decontamination(Matching):
    """Which benchmarks the release is compared with, how, and what becomes of rows that have an item of one."""

    benchmarks: tuple[Benchmark, ...] = Field(
        (), description="files or hub data sets, or {path: ..., text_column: ..., subset: ..., split: ...}; none: []"
    )
    action: Literal["drop", "flag"] = Field(
        "drop", description="drop rows that have an item, or flag: keep them and list them in the table contamination"
    )


@dataclass(frozen=True)
class Clean:
    """The tables without contaminated rows, in the order they were given, and the stages that say what was found."""

    tables: list[Stage]
    ends: tuple[Stage, ...] = ()


def decontaminated(
    given: Sequence[Stage],
    settings: Decontamination,
    *,
    columns: tuple[str, ...],
    together: tuple[str, ...] = (),
    released: bool = False,
) -> Clean:
    """Return tables of one kind without rows whose texts in `columns` have an item of a benchmark.

    Rows that agree in the columns `together` go together. Of a table that is `released` what is left takes the name.
    Without benchmarks the tables are those given.
    """
    if not settings.benchmarks:
        return Clean([*given])
    items = [
        benchmark_items(source=one.located(), benchmark=name, text_column=one.text_column, name=f"items_of_{slug}")
        for one, (name, slug) in zip(settings.benchmarks, _names(settings.benchmarks), strict=True)
    ]
    drops = settings.action == "drop"
    searched = [replace(one, name=f"{one.name}_before") for one in given] if released and drops else [*given]
    found = find_contamination(searched, settings, *items, columns=columns)
    ends = (contamination_figures(searched, found, *items, columns=columns), found)
    if not drops:
        return Clean(searched, ends)
    names = [one.name if released else f"clean_{one.name}" for one in given]
    tables = [
        decontaminate(one, found, together=together, contract=one.contract, name=name)
        for one, name in zip(searched, names, strict=True)
    ]
    return Clean(tables, ends)


def _names(benchmarks: Sequence[Benchmark]) -> list[tuple[str, str]]:
    """Return for each benchmark its name and how its stage is called after it; all differ."""
    named: dict[str, str] = {}
    for one in benchmarks:
        name, number = one.name, 1
        while (slug := re.sub(r"\W+", "_", name.casefold()).strip("_")) in named:
            number += 1
            name = f"{one.name} {number}"
        named[slug] = name
    return [(name, slug) for slug, name in named.items()]
