"""One part of a stage: read its rows, make the new ones, commit them. Runs in the flow or in an actor."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from normloom.core.errors import AccountingError, ContractError, StageError
from normloom.core.models.protocol import Metered
from normloom.core.rows.blocks import Blocks
from normloom.core.rows.forgotten import without_forgotten
from normloom.core.rows.ids import row_ids
from normloom.core.stage import Output, quarantined, quarantined_frame
from normloom.core.table import DROPPED_SCHEMA, QUARANTINE_SCHEMA, Kind, PartRecord
from normloom.store.parts import committed_part, require_writer, write_files, write_frames, write_part
from normloom.workers.parts.job import PartJob, RunJob
from normloom.workers.parts.origins import require_entries, require_origins
from normloom.workers.parts.reads import blocks_of, reads_digest, rows_of, sides_of
from normloom.workers.parts.returned import require_output
from normloom.workers.stage_run import run_in


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
    frames, aside, reads = _handed(job)
    asked = frames[0].height
    output = make_rows(job, frames, model)
    if job.forgotten:
        output = without_forgotten(output, job.forgotten)
    output = replace(
        output,
        attempts=(output.attempts or 0) + aside.height,
        quarantined=pl.concat([output.quarantined, aside]),
    )
    usage = model.take_usage() if isinstance(model, Metered) else {}
    made: dict[Kind, pl.DataFrame] = {
        "rows": output.rows,
        "dropped": output.dropped,
        "quarantined": output.quarantined,
    }
    require_writer(job.directory, job.writer)
    writer = f"{job.writer}-{job.copy}" if job.copy else job.writer
    attached = write_files(job.directory, job.index, files, writer=writer) if files else ()
    if isinstance(job, RunJob) and job.product and not attached and asked:
        raise StageError(f"stage {job.stage!r} makes files ({job.product}), but left none in run.files")
    record = PartRecord(
        index=job.index,
        start=job.start,
        stop=job.stop,
        files=write_frames(job.directory, job.index, made, writer=writer),
        attempts=output.attempts or 0,
        dropped_by=_counts(output.dropped, "reason"),
        quarantined_by=_counts(output.quarantined, "rule"),
        tokens_in=output.tokens_in,
        tokens_out=output.tokens_out,
        seconds=time.monotonic() - started,
        metrics=dict(output.metrics),
        usage=usage,
        attached=attached,
        reads=reads,
        places=job.places if job.reusable else "",
    )
    require_writer(job.directory, job.writer)
    return write_part(job.directory, record, writer=job.writer)


def _handed(job: PartJob) -> tuple[list[pl.DataFrame | Blocks], pl.DataFrame, str]:
    """Return the rows and side tables of a part, the ledger of poisoned rows, and the digest of what it reads."""
    if job.blocks:
        return [blocks_of(job), *sides_of(job, pl.DataFrame())], quarantined_frame([]), ""
    read = _read(job)
    rows, aside = _without_poisoned(job, read)
    sides = sides_of(job, rows)
    reads = reads_digest(job, read, sides_of(job, read) if aside.height else sides) if job.reusable else ""
    return [rows, *sides], aside, reads


def probe_part(job: PartJob, model: object | None = None) -> None:
    """Make the rows of a part and throw them away, to see whether it can be done."""
    rows, _ = _without_poisoned(job, _read(job))
    make_rows(job, [rows, *sides_of(job, rows)], model)


def part_row_ids(job: PartJob) -> list[str]:
    """Return the ids of the input rows of a part."""
    return _without_poisoned(job, _read(job))[0]["row_id"].to_list()


def make_rows(job: PartJob, frames: list[pl.DataFrame | Blocks], model: object | None) -> Output:
    """Call the stage's function and hold its output to the contract and to the account of rows.

    `frames` are the rows and side tables. They are taken out of the list, since those of a whole table should not be
    held while its new rows are written.
    """
    rows, *sides = frames
    frames.clear()
    if job.inputs is not None and rows.is_empty():
        return Output(rows=pl.DataFrame(schema=job.contract.schema), attempts=0)
    arguments: list[Any] = [job.arguments] if job.inputs is None else [rows, job.arguments, *sides]
    named = dict(job.values) if model is None else {**job.values, "model": model}
    output = require_output(job.function(*arguments, **named), where=f"stage {job.stage!r}")
    where = f"stage {job.stage!r}, part {job.index}"
    read = None if job.inputs is None else rows
    require_origins(output.rows, read, sides, where=where)
    for ledger in (output.dropped, output.quarantined):
        require_entries(ledger, read, sides, where=where)
    if job.fan_out is not None and job.inputs is not None and isinstance(rows, pl.DataFrame):
        job.fan_out.hold(rows, output, where=where)
        if output.attempts is None:  # each row has been accounted for
            output = replace(output, attempts=output.rows.height + output.dropped.height + output.quarantined.height)
    attempts = output.attempts if output.attempts is not None else rows.height
    del rows, read, sides, arguments
    accounted = output.rows.height + output.dropped.height + output.quarantined.height
    if attempts != accounted:
        raise AccountingError(
            f"{where}: {attempts} rows were attempted, but "
            f"{output.rows.height} came out, {output.dropped.height} were dropped and "
            f"{output.quarantined.height} quarantined ({accounted} in all): {_advice(accounted < attempts)}"
        )
    identified = _identified(output.rows, job)
    made = job.contract.enforce(identified, stage=job.stage)
    return replace(
        output,
        rows=made,
        dropped=output.dropped.select(pl.col(name).cast(dtype) for name, dtype in DROPPED_SCHEMA.items()),
        quarantined=output.quarantined.select(pl.col(name).cast(dtype) for name, dtype in QUARANTINE_SCHEMA.items()),
        attempts=attempts,
    )


def _advice(lost: bool) -> str:  # noqa: FBT001  # one of two sentences
    if lost:
        return (
            'return an Output that says why rows are left out: Output(kept, dropped=dropped_rows(left, reason="..."))'
        )
    return "return an Output with the number of rows that it sets out to make in `attempts`"


def _identified(rows: pl.DataFrame, job: PartJob) -> pl.DataFrame:
    """Give rows their parents and ids."""
    if "row_id" in rows.columns:  # the input row it came from; `parents`, if present, are that row's own
        family = ["row_id"]
        rows = rows.with_columns(parents=pl.concat_list("through" if "through" in rows.columns else "row_id"))
    elif "parents" in rows.columns:
        family = ["parents"]
    else:
        raise ContractError(
            f"stage {job.stage!r}: its rows do not say what they came from: keep the column `row_id` if each was made "
            "of one row, else give them `parents`, a list of row ids"
        )
    if "content" in rows.columns:
        family.append("content")
    ids = row_ids(job.system, job.stage, rows, *family)
    rows = rows.drop("through", "content", strict=False)
    return rows.with_columns(pl.Series("row_id", ids, dtype=pl.String))


def _read(job: PartJob) -> pl.DataFrame:
    return pl.DataFrame() if job.inputs is None else rows_of(job)


def _without_poisoned(job: PartJob, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the part's input rows without those that are poisoned, and the ledger of these."""
    bad = [row for row in rows.iter_rows(named=True) if row["row_id"] in job.poisoned] if job.poisoned else []
    if not bad:
        return rows, quarantined_frame([])
    causes = ((row, job.poisoned[row["row_id"]]) for row in bad)
    ledger = quarantined_frame([quarantined(row, why.rule, why.error) for row, why in causes])
    return rows.filter(~pl.col("row_id").is_in([row["row_id"] for row in bad])), ledger


def _counts(ledger: pl.DataFrame, column: str) -> dict[str, int]:
    return dict(ledger[column].value_counts(sort=True).iter_rows())
