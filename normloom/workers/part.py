"""One part of a stage: read its rows, make the new ones, commit them. Runs in the flow or in an actor."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel

from normloom.core.contract import Contract
from normloom.core.errors import AccountingError, ContractError, StageError
from normloom.core.fan_out import FanOut
from normloom.core.protocol import Metered, ModelSpec
from normloom.core.rows.forgotten import DenyList, without_forgotten
from normloom.core.rows.ids import row_ids
from normloom.core.rows.rules import CRASH, POISON
from normloom.core.stage import DROPPED_SCHEMA, QUARANTINE_SCHEMA, Output, quarantined, quarantined_frame
from normloom.core.table import PartRecord
from normloom.store.parts import committed_part, read_slice, require_writer, write_files, write_frames, write_part
from normloom.workers.stage_run import run_in

TableFiles = tuple[tuple[Path, int], ...]  # Parquet files of a table with their row counts, in row order


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

    `inputs` is None for a stage that reads no table. `writer` is the token of who holds the table's lock.
    `poisoned` names rows that are known to end their process or to raise, and how: they go to quarantine untouched.
    `copy` counts the copies made of a part that took too long: each writes files of its own. `served` is the model
    that makes it if the process holds that model's base: one with an adapter, or with a router. `reusable` says
    that later tables may take the part over if they would make it of the same rows. `forgotten` is what a source
    may not bring.
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
    values: Mapping[str, Any] = field(default_factory=dict)
    fan_out: FanOut | None = None
    poisoned: Mapping[str, PartFailure] = field(default_factory=dict)
    copy: int = 0
    served: ModelSpec | None = None
    reusable: bool = False
    forgotten: DenyList | None = None

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class RunJob(PartJob):
    """A part whose function takes a `Run`; `product` says what the files are that it must leave, None for none.

    `gpus` is how many its process has.
    """

    product: str | None = None
    gpus: float = 0.0


def run_part(job: PartJob, model: object | None = None) -> PartRecord:
    """Make one part and commit it, or return it if a copy was quicker.

    Raises StoreError if the table is published or another build has taken it over.
    """
    started = time.monotonic()
    require_writer(job.directory, job.writer)
    if quicker := committed_part(job.directory, job.index):
        return quicker
    if isinstance(job, RunJob):
        with run_in(job.directory, stage=job.stage, writer=job.writer, gpus=job.gpus) as run:
            return _committed(replace(job, values={**job.values, "run": run}), model, started, files=run.files)
    return _committed(job, model, started)


def _committed(job: PartJob, model: object | None, started: float, *, files: Path | None = None) -> PartRecord:
    rows, aside = _rows_of(job)
    output = make_rows(job, rows, _sides_of(job, rows), model)
    if job.forgotten:
        output = without_forgotten(output, job.forgotten)
    output = replace(
        output,
        attempts=(output.attempts or 0) + aside.height,
        quarantined=pl.concat([output.quarantined, aside]),
    )
    usage = model.take_usage() if isinstance(model, Metered) else {}
    frames = {"rows": output.rows, "dropped": output.dropped, "quarantined": output.quarantined}
    require_writer(job.directory, job.writer)
    writer = f"{job.writer}-{job.copy}" if job.copy else job.writer
    attached = write_files(job.directory, job.index, files, writer=writer) if files else ()
    if isinstance(job, RunJob) and job.product and not attached and rows.height:
        raise StageError(f"stage {job.stage!r} makes files ({job.product}), but left none in run.files")
    record = PartRecord(
        index=job.index,
        start=job.start,
        stop=job.stop,
        files=write_frames(job.directory, job.index, frames, writer=writer),  # type: ignore[arg-type]  # the keys are the three kinds
        attempts=output.attempts or 0,
        dropped_by=_counts(output.dropped, "reason"),
        quarantined_by=_counts(output.quarantined, "rule"),
        tokens_in=output.tokens_in,
        tokens_out=output.tokens_out,
        seconds=time.monotonic() - started,
        metrics=dict(output.metrics),
        usage=usage,
        attached=attached,
        reads=reads_digest(job) if job.reusable else "",
    )
    require_writer(job.directory, job.writer)
    return write_part(job.directory, record, writer=job.writer)


def probe_part(job: PartJob, model: object | None = None) -> None:
    """Make the rows of a part and throw them away, to see whether it can be done."""
    rows, _ = _rows_of(job)
    make_rows(job, rows, _sides_of(job, rows), model)


def with_own_sides(parts: Sequence[PartJob]) -> list[PartJob]:
    """Return the parts of a stage, each with only those files of its side tables that hold rows of its own.

    One pass over the ids, however many parts there are. Raises ContractError if a side row belongs to no input
    row: no part would get it.
    """
    first = parts[0]
    if first.sides_on is None or not first.inputs:
        return list(parts)
    part_of = pl.Series("part", np.repeat([part.index for part in parts], [len(part) for part in parts]))
    owners = _scan(first.inputs).select(owner="row_id").collect().with_columns(part_of).lazy()
    own = [_files_by_part(first, files, owners) for files in first.sides]
    return [
        replace(
            part,
            sides=tuple(  # a part with no rows of its own there still needs a file for the columns
                files_of.get(part.index, files[:1]) for files, files_of in zip(first.sides, own, strict=True)
            ),
        )
        for part in parts
    ]


def _files_by_part(stage: PartJob, files: TableFiles, owners: pl.LazyFrame) -> dict[int, TableFiles]:
    """Return the files of a side table in which each part has rows."""
    named = _scan(files, include_file_paths="path").select("row_id", "path", owner=pl.col(stage.sides_on or ""))
    found = named.join(owners, on="owner", how="left").group_by("path", "part").first().collect(engine="streaming")
    for row_id, owner in found.filter(pl.col("part").is_null()).select("row_id", "owner").iter_rows():
        raise ContractError(
            f"stage {stage.stage!r}: row {row_id} of a side table belongs to row {owner} "
            f"by column {stage.sides_on!r}, which is not an input row"
        )
    parts_of: dict[str, list[int]] = dict(found.group_by("path").agg("part").iter_rows())
    chosen: dict[int, TableFiles] = {}
    for file in files:
        for part in parts_of.get(str(file[0]), []):
            chosen[part] = (*chosen.get(part, ()), file)
    return chosen


def reads_digest(job: PartJob) -> str:
    """Return the digest of the rows that a part is made of: its input rows, and its own rows of side tables."""
    rows = read_slice(job.inputs or (), job.start, job.stop)
    hasher = hashlib.blake2b(digest_size=16)
    for frame in [rows, *(_sides_of(job, rows) if job.sides_on else ())]:
        buffer = io.BytesIO()
        frame.rechunk().write_parquet(buffer, compression="uncompressed", statistics=False)
        hasher.update(hashlib.sha256(buffer.getbuffer()).digest())
    return hasher.hexdigest()


def part_row_ids(job: PartJob) -> list[str]:
    """Return the ids of the input rows of a part."""
    return _rows_of(job)[0]["row_id"].to_list()


def make_rows(job: PartJob, rows: pl.DataFrame, sides: Sequence[pl.DataFrame], model: object | None) -> Output:
    """Call the stage's function and hold its output to the contract and to the account of rows."""
    if job.inputs is not None and rows.is_empty():
        return Output(rows=pl.DataFrame(schema=job.contract.schema), attempts=0)
    arguments: list[Any] = [job.arguments] if job.inputs is None else [rows, job.arguments, *sides]
    named = dict(job.values) if model is None else {**job.values, "model": model}
    output = job.function(*arguments, **named)
    if job.fan_out is not None and job.inputs is not None:
        job.fan_out.hold(rows, output, where=f"stage {job.stage!r}, part {job.index}")
        if output.attempts is None:  # each row has been accounted for
            output = replace(output, attempts=output.rows.height + output.dropped.height + output.quarantined.height)
    attempts = output.attempts if output.attempts is not None else rows.height
    accounted = output.rows.height + output.dropped.height + output.quarantined.height
    if attempts != accounted:
        raise AccountingError(
            f"stage {job.stage!r}, part {job.index}: {attempts} rows were attempted, but "
            f"{output.rows.height} came out, {output.dropped.height} were dropped and "
            f"{output.quarantined.height} quarantined ({accounted} in all)"
        )
    made = job.contract.enforce(_identified(output.rows, job), stage=job.stage)
    return replace(
        output,
        rows=made,
        dropped=output.dropped.select(pl.col(name).cast(dtype) for name, dtype in DROPPED_SCHEMA.items()),
        quarantined=output.quarantined.select(pl.col(name).cast(dtype) for name, dtype in QUARANTINE_SCHEMA.items()),
        attempts=attempts,
    )


def _identified(rows: pl.DataFrame, job: PartJob) -> pl.DataFrame:
    """Give rows their parents and ids."""
    if "row_id" in rows.columns:  # the input row it came from; `parents`, if present, are that row's own
        families = [[row_id] for row_id in rows["row_id"]]
        rows = rows.with_columns(parents=pl.concat_list("through" if "through" in rows.columns else "row_id"))
    elif "parents" in rows.columns:
        families = rows["parents"].to_list()
    else:
        raise ContractError(f"stage {job.stage!r}: its rows have neither `parents` nor the `row_id` they came from")
    rows = rows.drop("through", strict=False)
    if "content" in rows.columns:
        families = [[*parents, content] for parents, content in zip(families, rows["content"], strict=True)]
        rows = rows.drop("content")
    ids = row_ids(job.system, job.stage, families)
    return rows.with_columns(pl.Series("row_id", ids, dtype=pl.String))


def _rows_of(job: PartJob) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the part's input rows and the ledger of those that are poisoned."""
    if job.inputs is None:
        return pl.DataFrame(), quarantined_frame([])
    rows = read_slice(job.inputs, job.start, job.stop)
    bad = [row for row in rows.iter_rows(named=True) if row["row_id"] in job.poisoned] if job.poisoned else []
    if not bad:
        return rows, quarantined_frame([])
    causes = ((row, job.poisoned[row["row_id"]]) for row in bad)
    ledger = quarantined_frame([quarantined(row, why.rule, why.error) for row, why in causes])
    return rows.filter(~pl.col("row_id").is_in([row["row_id"] for row in bad])), ledger


def _sides_of(job: PartJob, rows: pl.DataFrame) -> list[pl.DataFrame]:
    """Return the part's side tables, or what of them belongs to its rows."""
    if job.sides_on is None:
        return [_read_side(files) for files in job.sides]
    belongs = pl.col(job.sides_on).is_in(rows["row_id"].implode())
    return [_scan(files).filter(belongs).collect() for files in job.sides]


def _scan(files: TableFiles, *, include_file_paths: str | None = None) -> pl.LazyFrame:
    return pl.scan_parquet([path for path, _ in files], glob=False, include_file_paths=include_file_paths)


@lru_cache(maxsize=8)
def _read_side(files: TableFiles) -> pl.DataFrame:
    return read_slice(files, 0, sum(rows for _, rows in files))


def _counts(ledger: pl.DataFrame, column: str) -> dict[str, int]:
    return dict(ledger[column].value_counts(sort=True).iter_rows())
