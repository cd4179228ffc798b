"""The records of a table: its parts, its manifest and a small reference to it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import not_
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from normloom.core.rows.rules import TRANSIENT

Kind = Literal["rows", "dropped", "quarantined"]
KINDS: tuple[Kind, ...] = ("rows", "dropped", "quarantined")
DROPPED_SCHEMA = {
    "row_id": pl.String,  # the input row that was dropped, or whose attempt was
    "reason": pl.String,
    "winner": pl.String,  # the row that was kept instead, if there is one
    "payload": pl.String,  # what was dropped, as JSON
}
QUARANTINE_SCHEMA = {
    "row_id": pl.String,  # the input row that was quarantined, or whose attempt was
    "rule": pl.String,
    "reason": pl.String,
    "payload": pl.String,
}
LEDGERS: Mapping[Kind, Mapping[str, Any]] = {"dropped": DROPPED_SCHEMA, "quarantined": QUARANTINE_SCHEMA}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Record):
    """One file of a part: Parquet, or one of its product's own files, which has no rows.

    Parquet files have `blake3`; a product's own files, and Parquet files of stores before format 6, have `sha256`. A
    ledger without entries has no file: then `name` is empty.
    """

    name: str
    rows: int
    bytes: int
    sha256: str = ""
    blake3: str = Field("", exclude_if=not_)  # left out if empty, so that older seals hold

    @property
    def checksum(self) -> str:
        """The checksum that the file has (64 hex digits)."""
        return self.blake3 or self.sha256


NO_FILE = FileRecord(name="", rows=0, bytes=0)


class PartRecord(_Record):
    """One committed part: input rows `start` to `stop` and what became of them.

    `attempts` = rows + dropped + quarantined; `dropped_by` and `quarantined_by` count by reason and rule. `usage` is
    the model's count meanwhile (`Metered`); concurrent parts split it arbitrarily, so only sums are meaningful.
    `attached` are the product's files besides its rows, in a folder of the part. `reads` is the digest of its input
    rows, followed by a hyphen and that of its side rows if these are cut; a later table reuses the part by it. `places`
    records where these rows are, in the same form (`normloom.workers.parts.places`). Both are empty if the part cannot
    be reused. In the manifest of a table that reused the part, `places` is newer than in the part's own file.
    """

    index: int
    start: int
    stop: int
    files: Mapping[Kind, FileRecord]
    attempts: int
    dropped_by: Mapping[str, int]
    quarantined_by: Mapping[str, int]
    tokens_in: int
    tokens_out: int
    seconds: float
    metrics: Mapping[str, float]
    usage: Mapping[str, float] = Field(default_factory=dict)
    attached: tuple[FileRecord, ...] = ()
    reads: str = ""
    places: str = Field("", exclude_if=not_)  # left out if empty, so that older seals hold

    @property
    def stored(self) -> tuple[FileRecord, ...]:
        """All files of the part."""
        return (*(file for file in self.files.values() if file.name), *self.attached)

    def is_as(self, other: PartRecord) -> bool:
        """Return whether both are records of the same part; `places`, where its input rows are, may differ."""
        return self == other or self == other.model_copy(update={"places": self.places})

    @property
    def settled(self) -> bool:
        """Whether rebuilding the part would give the same: no row is quarantined for a transient reason."""
        return TRANSIENT.isdisjoint(self.quarantined_by)


class CheckResult(_Record):
    """What one check of the contract found on the whole table."""

    name: str
    passed: bool
    on_fail: str
    detail: str


class TableRef(_Record):
    """A published table, small enough to travel between tasks."""

    system: str
    stage: str
    key: str
    content: str
    rows: int

    def __str__(self) -> str:
        return f"{self.system}/{self.stage}/{self.key}"

    def known_to(self, system: str) -> str:
        """Return the name of the stage in a system's flow: one of another system carries that system's name too."""
        return self.stage if self.system == system else f"{self.system}_{self.stage}"


class Work(_Record):
    """How one build made its parts of a table.

    `seconds` run from the loaded model to the last part, `first_part_seconds` to the first. `host_bytes` and
    `device_bytes` are the largest memory of one process with the model at the end.
    """

    seconds: float
    first_part_seconds: float
    parts: int
    tokens_in: int
    tokens_out: int
    loads: int
    host_bytes: int
    device_bytes: int
    usage: Mapping[str, float]

    @classmethod
    def of(
        cls,
        parts: Sequence[PartRecord],
        *,
        seconds: float,
        first: float,
        loads: int,
        host_bytes: int,
        device_bytes: int,
    ) -> Work:
        """Return the account of parts just made."""
        return cls(
            seconds=seconds,
            first_part_seconds=first,
            parts=len(parts),
            tokens_in=sum(part.tokens_in for part in parts),
            tokens_out=sum(part.tokens_out for part in parts),
            loads=loads,
            host_bytes=host_bytes,
            device_bytes=device_bytes,
            usage=_sum(part.usage for part in parts),
        )

    @property
    def tokens_in_per_second(self) -> float:
        """Prompt tokens read a second, by all actors together."""
        return self.tokens_in / self.seconds if self.seconds else 0.0

    @property
    def tokens_out_per_second(self) -> float:
        """Tokens written a second, by all actors together."""
        return self.tokens_out / self.seconds if self.seconds else 0.0

    @property
    def occupancy(self) -> float | None:
        """The share of the batch's slots that were in use, None if the engine does not count them."""
        return _share(self.usage, "slots_used", "slots")

    @property
    def cached(self) -> float | None:
        """The share of prompt tokens found in the prefix cache, None if the engine does not count them."""
        return _share(self.usage, "cached_tokens", "prompt_tokens")


class Manifest(_Record):
    """The record of a published table; written last, its presence publishes the table.

    `seconds` is the wall time of the stage; `load_seconds` is the time to load its model, summed over actors. `work`
    is about the parts made by this build, None if a killed build had left none to make.
    `remake` counts how often the table was rebuilt on demand with nothing changed; `key` is the
    digest of `key_fields` if it is 0. `seal` is the digest of all the rest; tables before format 3 have none.
    """

    system: str
    stage: str
    key: str
    key_fields: Mapping[str, Any]
    content: str
    inputs: Sequence[TableRef]
    sides: Sequence[TableRef]
    parts: list[PartRecord]  # a list is written and read in half the time of another sequence
    rows_in: int
    seconds: float
    load_seconds: float
    checks: Sequence[CheckResult]
    build: str
    created: str
    remake: int = 0
    work: Work | None = None
    seal: str = ""

    def sealed(self) -> Manifest:
        """Return the manifest with its seal set."""
        return self.model_copy(update={"seal": self._digest()})

    @property
    def intact(self) -> bool:
        """Whether the seal matches."""
        return not self.seal or self.seal == self._digest()

    def _digest(self) -> str:
        return hashlib.sha256(self.model_dump_json(exclude={"seal"}).encode()).hexdigest()

    @property
    def ref(self) -> TableRef:
        """The reference that names this table."""
        return TableRef(
            system=self.system, stage=self.stage, key=self.key, content=self.content, rows=self.count("rows")
        )

    def made_before(self, moment: str) -> bool:
        """Return whether the table was published before a time in ISO 8601."""
        return datetime.fromisoformat(self.created) < datetime.fromisoformat(moment)

    def count(self, kind: Kind) -> int:
        """Return how many rows of a kind the table holds."""
        return sum(part.files[kind].rows for part in self.parts)

    @property
    def attempts(self) -> int:
        """How many rows the stage set out to make."""
        return sum(part.attempts for part in self.parts)

    @property
    def tokens_in(self) -> int:
        """Prompt tokens that models read."""
        return sum(part.tokens_in for part in self.parts)

    @property
    def tokens_out(self) -> int:
        """Tokens that models wrote."""
        return sum(part.tokens_out for part in self.parts)

    @property
    def dropped_by(self) -> dict[str, int]:
        """Rows dropped, by reason."""
        return total(part.dropped_by for part in self.parts)

    @property
    def quarantined_by(self) -> dict[str, int]:
        """Rows quarantined, by rule."""
        return total(part.quarantined_by for part in self.parts)

    @property
    def metrics(self) -> dict[str, float]:
        """Figures the stage reported, added up over its parts."""
        return _sum(part.metrics for part in self.parts)

    @property
    def attached(self) -> dict[str, FileRecord]:
        """The files that the product has besides its rows, by their path in its folder."""
        records = [record for part in self.parts for record in part.attached]
        return {record.name.partition("/")[2]: record for record in records}

    @property
    def product(self) -> str:
        """The kind of the product's files, as declared by its step."""
        return str(self.key_fields.get("files") or "files")

    @property
    def attached_bytes(self) -> int:
        """The size of the files that the product has besides its rows."""
        return sum(record.bytes for record in self.attached.values())

    @property
    def attached_told(self) -> str:
        """Kind, number and size of the product's files; empty if it has none."""
        count = len(self.attached)
        return (
            f"{self.product}: {count:,} file{'s' * (count > 1)}, {self.attached_bytes / 1e6:,.1f} MB" if count else ""
        )

    def files(self, directory: Path, kind: Kind = "rows") -> list[tuple[Path, int]]:
        """Return the paths of one kind of file with their row counts, in row order; there may be none of ledgers."""
        records = (part.files[kind] for part in self.parts)
        return [(directory / record.name, record.rows) for record in records if record.name]


def _share(usage: Mapping[str, float], part: str, whole: str) -> float | None:
    return usage[part] / usage[whole] if part in usage and usage.get(whole) else None


def _sum(figures: Iterable[Mapping[str, float]]) -> dict[str, float]:
    totals: defaultdict[str, float] = defaultdict(float)
    for figure in figures:
        for name, value in figure.items():
            totals[name] += value
    return dict(totals)


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return counts added up, the largest first."""
    totals: Counter[str] = Counter()
    for count in counts:
        totals.update(count)
    return dict(totals.most_common())
