"""The columns that a step is not handed: its rows and ledgers get them from the rows that it read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import polars as pl

from normloom.core.contract import IDENTITY, Contract
from normloom.core.errors import ContractError
from normloom.core.rows.blocks import Blocks
from normloom.core.stage import Output
from normloom.core.table import Kind
from normloom.store.parts import ROW_GROUP, read_slice
from normloom.workers.parts.job import PartJob
from normloom.workers.parts.reads import scan, schema_of


def contract_of(made: pl.DataFrame, contract: Contract) -> Contract:
    """Return the part of a contract that rows must keep before they have the columns that are carried: keys, too."""
    own = {*made.columns, *contract.keys}
    return replace(contract, columns={name: dtype for name, dtype in contract.columns.items() if name in own})


def written(job: PartJob, output: Output) -> Mapping[Kind, pl.DataFrame | Blocks]:
    """Return the rows and ledgers of a part as they are written.

    If its stage carries columns over, rows get those that they lack from the rows that they keep, and payloads those
    that the step was not handed. While such rows are written, ContractError is raised if they are not rows that the
    step read, in the same order.
    """
    if not job.carries or not len(job):
        return {"rows": output.rows, "dropped": output.dropped, "quarantined": output.quarantined}
    made, contract = output.rows, job.contract
    there = schema_of(job.inputs or ())
    lacking = [name for name in there if name not in made.columns and (contract.extra or name in contract.columns)]
    order = [name for name in (*there, *made.columns) if name in {*made.columns, *lacking}]
    columns = {name: made.schema.get(name) or there[name] for name in dict.fromkeys(order)}
    schema = contract.schema | {name: dtype for name, dtype in columns.items() if name not in contract.schema}
    handed = {*IDENTITY, *(job.reads or ())}
    unread = [name for name in there if name not in handed]
    return {
        "rows": Blocks(schema, made.height, partial(_rows, job, made, lacking, list(columns))),
        "dropped": _told(job, output.dropped, unread),
        "quarantined": _told(job, output.quarantined, unread),
    }


def _rows(job: PartJob, made: pl.DataFrame, lacking: Sequence[str], order: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Yield the rows with the columns that they lack, some thousand at a time."""
    done = 0
    for start in range(job.start, job.stop, ROW_GROUP):
        stop = min(start + ROW_GROUP, job.stop)
        read = read_slice(job.inputs or (), start - job.before, stop - job.before, columns=("row_id", *lacking))
        some = made[done : done + read.height].with_columns(_of=pl.col("parents").list.first())
        rows = some.join(read.rename({"row_id": "_of"}), on="_of", maintain_order="left")
        done += rows.height
        yield job.contract.enforce(rows.select(order), stage=job.stage)
    if done < made.height:
        raise ContractError(
            f"stage {job.stage!r}: it carries columns over, so its rows must be rows that it read, in the same order"
        )


def _told(job: PartJob, ledger: pl.DataFrame, unread: Sequence[str]) -> pl.DataFrame:
    if ledger.is_empty() or not unread:
        return ledger
    told = pl.struct(unread).struct.json_encode().str.strip_suffix("}")
    rows = scan(job.inputs or ()).filter(pl.col("row_id").is_in(ledger["row_id"].unique().implode()))
    found = ledger.join(rows.select("row_id", _told=told).collect(), on="row_id", how="left", maintain_order="left")
    whole = pl.concat_str("_told", pl.lit(","), pl.col("payload").str.slice(1)).str.replace(",}$", "}")
    return found.with_columns(payload=pl.coalesce(whole, "payload")).select(ledger.columns)
