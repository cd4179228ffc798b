"""Tables that a build left unpublished, refused or not finished, and what is in quarantine of all newest tables."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from normloom.core.table import QUARANTINE_SCHEMA, PartRecord, total
from normloom.store.layout import BUILDS, CURRENT, MANIFEST, MARKERS, REUSED
from normloom.store.store import Store


@dataclass(frozen=True, kw_only=True)
class UnpublishedTable:
    """The finished parts of a table that has no manifest, in row order."""

    stage: str
    key: str
    directory: Path
    parts: Sequence[PartRecord]

    @property
    def quarantined_by(self) -> dict[str, int]:
        """Rows in quarantine, by rule."""
        return total(part.quarantined_by for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class Quarantine:
    """What is in quarantine of one table of a stage; `files` are Parquet files of ledger entries."""

    stage: str
    published: bool
    quarantined_by: dict[str, int]
    files: Sequence[Path]

    @property
    def count(self) -> int:
        """How many rows that are."""
        return sum(self.quarantined_by.values())

    def rows(self) -> pl.DataFrame:
        """Return the entries: columns `row_id`, `rule`, `reason` and `payload`."""
        return pl.read_parquet(list(self.files), glob=False) if self.files else pl.DataFrame(schema=QUARANTINE_SCHEMA)


def unpublished(store: Store, system: str) -> list[UnpublishedTable]:
    """Return the unpublished table of each stage that is younger than what the stage has published, by stage."""
    found = (_youngest(store, stage) for stage in sorted((store.root / system).glob("[!.]*")) if stage.name != BUILDS)
    return [table for table in found if table]


def quarantines(store: Store, system: str) -> list[Quarantine]:
    """Return the quarantine of each stage's newest table, the oldest first, and then of the unpublished ones."""
    published = [
        Quarantine(
            stage=manifest.stage,
            published=True,
            quarantined_by=manifest.quarantined_by,
            files=[path for path, _ in manifest.files(store.table_directory(manifest.ref), "quarantined")],
        )
        for manifest in store.newest(system)
    ]
    return published + [
        Quarantine(
            stage=table.stage,
            published=False,
            quarantined_by=table.quarantined_by,
            files=[table.directory / file.name for part in table.parts if (file := part.files["quarantined"]).rows],
        )
        for table in unpublished(store, system)
    ]


def _youngest(store: Store, stage: Path) -> UnpublishedTable | None:
    tables = {table: touched for table in stage.glob("[!.]*/") if (touched := _touched(table)) is not None}
    if not tables:
        return None
    youngest = max(tables, key=lambda table: tables[table])
    pointer = stage / CURRENT
    if pointer.exists() and pointer.stat().st_mtime_ns >= tables[youngest]:
        return None
    parts = store.parts(youngest, verify=False)
    if not parts:
        return None
    return UnpublishedTable(
        stage=stage.name, key=youngest.name, directory=youngest, parts=[parts[index] for index in sorted(parts)]
    )


def _touched(table: Path) -> int | None:
    """Return when the last part of an unpublished table was finished, in ns; None if it is published or has none."""
    if (table / MANIFEST).exists():
        return None
    times = []
    for marker in [*table.glob(MARKERS), table / REUSED]:
        with suppress(FileNotFoundError):  # taken back meanwhile, or nothing is taken over
            times.append(marker.stat().st_mtime_ns)
    return max(times, default=None)
