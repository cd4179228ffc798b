"""The parts of a table under the checks of the whole table: which rows were checked before, and what is taken out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from normloom.core.stage import quarantined, quarantined_frame
from normloom.core.table import KINDS, Manifest, PartRecord
from normloom.planning.new_table import NewTable
from normloom.run.checks.table_checks import Checked
from normloom.store.parts import scan_parts, write_frames, write_part


def checked_before(
    earlier: Manifest, directory: Path, taken: Sequence[PartRecord], parts: Sequence[PartRecord]
) -> Checked:
    """Return what is known of the parts of a table of which some were taken over from an earlier one."""
    known = {part.index for part in taken}
    made = [part for part in parts if part.index not in known]
    return Checked(
        results=earlier.checks,
        rows=sum(part.files["rows"].rows for part in taken),
        new=scan_parts(directory, made) if made else scan_parts(directory, parts).head(0),
    )


def _under_input(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row under the id of the input row it came from, if that is one, as ledgers name rows."""
    return {**row, "row_id": row["parents"][0]} if len(row["parents"]) == 1 else row


def without_failing(table: NewTable, part: PartRecord, aside: dict[str, str]) -> PartRecord:
    """Return the part, committed again, with rows that failed a check moved to quarantine.

    A check looks at the whole table, so no other table takes the part over.
    """
    directory = table.directory
    frames = {kind: scan_parts(directory, [part], kind).collect() for kind in KINDS}
    failing = frames["rows"].filter(pl.col("row_id").is_in(list(aside)))
    if failing.is_empty():
        return part
    ledger = quarantined_frame(
        [
            quarantined(_under_input(row), aside[row["row_id"]], "the row fails this check")
            for row in failing.iter_rows(named=True)
        ]
    )
    frames["rows"] = frames["rows"].filter(~pl.col("row_id").is_in(list(aside)))
    frames["quarantined"] = pl.concat([frames["quarantined"], ledger])
    counts = frames["quarantined"]["rule"].value_counts(sort=True).iter_rows()
    files = write_frames(directory, part.index, frames, writer=f"{table.writer.token}-checked")
    checked = part.model_copy(update={"files": files, "quarantined_by": dict(counts), "reads": ""})
    return write_part(directory, checked, writer=table.writer.token, instead=part)
