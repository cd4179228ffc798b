"""What is needed to make one part, and how that can fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from normloom.core.contract import Contract
from normloom.core.fan_out import FanOut
from normloom.core.models.protocol import ModelSpec
from normloom.core.rows.forgotten import DenyList
from normloom.core.rows.rules import CRASH, POISON
from normloom.core.stage import Output, SideReads

TableFiles = tuple[tuple[Path, int], ...]  # Parquet files of a table with their row counts, in row order
Span = tuple[int, int]  # rows that follow each other: the first, and the one after the last


@dataclass(frozen=True)
class PartFailure:
    """Why a part was not made: its function raised, or its process died.

    `machine` says that what was raised tells of the machine and not of the rows: memory, disk, connections.
    """

    error: str
    died: bool = False
    machine: bool = False

    @property
    def rule(self) -> str:
        """The quarantine rule of a row that fails in this way alone."""
        return CRASH if self.died or self.machine else POISON


@dataclass(frozen=True, kw_only=True)
class PartJob:
    """All that is needed to make one part, wherever it runs.

    `inputs` is None for a stage that reads no table; else the files that hold its rows, `before` how many rows the
    files before these have. `writer` is the token of who holds the table's lock. `poisoned` names rows that are
    known to end their process or to raise, and how: they go to quarantine untouched. `copy` counts the copies made
    of a part that took too long: each writes files of its own. `served` is the model that makes it if the process
    holds that model's base: one with an adapter, or with a router. `reusable` says that later tables may take the
    part over if they would make it of the same rows. `forgotten` is what a source may not bring. `reads` are the
    columns of its rows that it reads, `side_reads` those of each side table, `side_spans` of which rows of each
    side table it looks up its own (of all if empty), `places` where in which files its rows are, and after a hyphen
    those of side tables. With `blocks` rows are handed over in blocks.
    """

    system: str
    stage: str
    function: Callable[..., Output]
    arguments: BaseModel
    contract: Contract
    directory: Path
    writer: str
    index: int
    start: int
    stop: int
    inputs: TableFiles | None
    sides: tuple[TableFiles, ...]
    sides_on: str | None = None
    looks_up: tuple[str, ...] = ()
    reads: tuple[str, ...] | None = None
    side_reads: SideReads = ()
    blocks: bool = False
    before: int = 0
    side_spans: tuple[Span, ...] = ()
    places: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    fan_out: FanOut | None = None
    poisoned: Mapping[str, PartFailure] = field(default_factory=dict)
    copy: int = 0
    served: ModelSpec | None = None
    reusable: bool = False
    forgotten: DenyList | None = None

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def makes(self) -> int:
        """How many rows it is to make, as many as it reads if only these can tell."""
        return self.fan_out.of(len(self)) if self.fan_out else len(self)


@dataclass(frozen=True, kw_only=True)
class RunJob(PartJob):
    """A part whose function takes a `Run`; `product` says what the files are that it must leave, None for none.

    `gpus` is how many its process has.
    """

    product: str | None = None
    gpus: float = 0.0
