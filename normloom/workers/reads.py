"""What a part reads: its rows, its own rows of side tables, and the digests that tell whether these are the same."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl

from normloom.core.errors import ContractError
from normloom.store.parts import ROW_GROUP, read_slice
from normloom.workers.job import PartJob, TableFiles

_DIGESTS: dict[tuple[str, tuple[str, ...] | None], str] = {}  # of input rows, by their place and columns
_MOST_DIGESTS = 100_000


def rows_of(job: PartJob) -> pl.DataFrame:
    """Return the input rows of a part, with no other columns than its step reads."""
    columns = None
    if job.reads is not None and job.inputs:
        there = _columns(job.inputs[0][0])
        columns = ("row_id", *(name for name in job.reads if name in there and name != "row_id"))
    return read_slice(job.inputs or (), job.start - job.before, job.stop - job.before, columns=columns)


def sides_of(job: PartJob, rows: pl.DataFrame) -> list[pl.DataFrame]:
    """Return a part's side tables, or what of them belongs to its rows."""
    if job.sides_on:
        belongs = pl.col(job.sides_on).is_in(rows["row_id"].implode())
        return [_scan(files).filter(belongs).collect() for files in job.sides]
    if job.looks_up:
        return _looked_up(job, rows)
    return list(_whole(job.sides))


def reads_digest(job: PartJob, rows: pl.DataFrame, sides: Sequence[pl.DataFrame]) -> str:
    """Return the digest of the input rows of a part, and after a hyphen that of its own rows of side tables."""
    return joined(rows_digest(job, rows), digest_of(sides) if job.sides_on or job.looks_up else "")


def joined(rows: str, sides: str) -> str:
    """Return digests of input rows and of side tables as one text; `parted` returns them."""
    return f"{rows}-{sides}" if sides else rows


def parted(digests: str) -> tuple[str, str]:
    """Return what was `joined`."""
    rows, _, sides = digests.partition("-")
    return rows, sides


def rows_digest(job: PartJob, rows: pl.DataFrame | None = None) -> str:
    """Return the digest of the input rows of a part, which are read if they are not given."""
    known = (parted(job.places)[0], job.reads)
    if job.places and known in _DIGESTS:
        return _DIGESTS[known]
    found = digest_of([rows_of(job) if rows is None else rows])
    if job.places:
        if len(_DIGESTS) >= _MOST_DIGESTS:
            _DIGESTS.clear()
        _DIGESTS[known] = found
    return found


def sides_digest(job: PartJob) -> str:
    """Return the digest of a part's own rows of side tables; empty if its side tables are not cut."""
    if not (job.sides_on or job.looks_up):
        return ""
    return digest_of(sides_of(job, rows_of(replace(job, reads=job.looks_up))))  # rows by what names their side rows


def digest_of(frames: Sequence[pl.DataFrame]) -> str:
    """Return the digest of the columns and rows of some frames (32 hex digits).

    They are written `ROW_GROUP` rows at a time, so that a table that is read whole is not held a second time.
    """
    hasher = hashlib.blake2b(digest_size=16)
    for frame in (some for whole in frames for some in (whole.iter_slices(ROW_GROUP) if whole.height else [whole])):
        buffer = io.BytesIO()
        frame.rechunk().write_parquet(buffer, compression="uncompressed", statistics=False)
        hasher.update(hashlib.sha256(buffer.getbuffer()).digest())
    return hasher.hexdigest()


def with_places(jobs: Sequence[PartJob], checksums: Mapping[Path, str]) -> list[PartJob]:
    """Return the parts of a stage, each with digests of where what it reads is: files by checksum, and rows in them.

    Parts with the same places read the same rows; those with other places may.
    """
    inputs = _files_of_spans(jobs[0].inputs or (), [(job.start, job.stop) for job in jobs])
    placed = []
    for job, held in zip(jobs, inputs, strict=True):
        sides = []
        for number, files in enumerate(job.sides if job.sides_on or job.looks_up else ()):
            span = job.side_spans[number] if job.side_spans else (0, _count(files))
            sides += [(Path(str(number)), 0, 0), *_files_of_spans(files, [span])[0]]
        placed.append(replace(job, places=joined(_place(held, checksums), _place(sides, checksums) if sides else "")))
    return placed


def with_own_inputs(jobs: Sequence[PartJob]) -> list[PartJob]:
    """Return the parts of a stage, each with the files of its own rows and no others: there may be thousands."""
    files = jobs[0].inputs or ()
    ends = np.cumsum([0, *(rows for _, rows in files)], dtype=np.int64)
    first = (np.searchsorted(ends, [job.start for job in jobs], side="right") - 1).tolist()
    last = np.searchsorted(ends, [job.stop for job in jobs]).tolist()
    return [
        replace(job, inputs=files[begin:end], before=int(ends[begin])) if begin < end else job
        for job, begin, end in zip(jobs, first, last, strict=True)
    ]


def _place(held: Sequence[tuple[Path, int, int]], checksums: Mapping[Path, str]) -> str:
    lines = "\n".join(f"{checksums.get(path, path)} {first} {last}" for path, first, last in held)
    return hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()


def with_own_sides(parts: Sequence[PartJob]) -> list[PartJob]:
    """Return the parts of a stage, each with only what of its side tables may hold rows of its own.

    One pass over the ids, however many parts there are. Raises ContractError if a side row belongs to no input
    row: no part would get it.
    """
    first = parts[0]
    if not first.inputs or not (first.sides_on or first.looks_up):
        return list(parts)
    part_of = pl.Series("part", np.repeat([part.index for part in parts], [len(part) for part in parts]))
    if first.looks_up:
        spans = _spans_by_part(first, part_of)
        return [replace(part, side_spans=tuple(of.get(part.index, (0, 0)) for of in spans)) for part in parts]
    keys = _scan(first.inputs).select(key="row_id").collect().with_columns(part_of)
    own = [_files_by_part(first, files, keys) for files in first.sides]
    return [
        replace(
            part,
            sides=tuple(  # a part with no rows of its own there still needs a file for the columns
                files_of.get(part.index, files[:1]) for files, files_of in zip(first.sides, own, strict=True)
            ),
        )
        for part in parts
    ]


def _files_by_part(stage: PartJob, files: TableFiles, owners: pl.DataFrame) -> dict[int, TableFiles]:
    """Return the files of a side table in which each part has rows."""
    column = stage.sides_on or ""
    file_of = pl.Series("file", np.repeat(np.arange(len(files)), [rows for _, rows in files]), dtype=pl.UInt32)
    named = _scan(files).select(key=column).collect().with_columns(file_of)
    first = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in ("key", "file"))
    runs = named.filter(first)  # of rows that follow each other and belong to the same one
    found = runs.join(owners, on="key", how="left").select("file", "part", "key")
    if lost := found.filter(pl.col("part").is_null()).head(1)["key"].to_list():
        [row_id] = _scan(files).filter(pl.col(column).eq_missing(lost[0])).select("row_id").head(1).collect()["row_id"]
        raise ContractError(
            f"stage {stage.stage!r}: row {row_id} of a side table belongs to row {lost[0]} "
            f"by column {stage.sides_on!r}, which is not an input row"
        )
    pairs = found.select("part", "file").unique().sort("part", "file").group_by("part", maintain_order=True).agg("file")
    return {part: tuple(files[number] for number in numbers) for part, numbers in pairs.iter_rows()}


def _looked_up(job: PartJob, rows: pl.DataFrame) -> list[pl.DataFrame]:
    """Return the rows of side tables that a part looks up: each by a column of its rows, or of those found before."""
    found: list[pl.DataFrame] = []
    spans = job.side_spans or tuple((0, _count(files)) for files in job.sides)
    for files, span, column in zip(job.sides, spans, job.looks_up, strict=False):
        names = next(frame[column] for frame in (rows, *found) if column in frame.columns)
        side = read_slice(files, *span)
        key = column if column in side.columns else "row_id"
        found.append(side.join(pl.DataFrame({key: names.unique()}), on=key, how="semi", maintain_order="left"))
    return found


def _spans_by_part(stage: PartJob, part_of: pl.Series) -> list[dict[int, tuple[int, int]]]:
    """Return for each side table the first and last place (exclusive) of the rows that each part looks up in it."""
    rows = _scan(stage.inputs or ())
    here = [name for name in stage.looks_up if name in rows.collect_schema()]
    read = rows.select(here).collect().with_columns(part_of)
    named = {name: read.select("part", key=name).unique() for name in here}
    spans = []
    for files, column in zip(stage.sides, stage.looks_up, strict=False):
        side = _scan(files)
        schema = side.collect_schema()
        key = column if column in schema else "row_id"
        further = [name for name in stage.looks_up if name in schema and name not in {*named, key}]
        rows_of_side = side.select(pl.col(key).alias("key"), *further).with_row_index("_at").collect()
        found = named[column].join(rows_of_side, on="key")
        ends = found.group_by("part").agg(first=pl.col("_at").min(), last=pl.col("_at").max())
        spans.append({part: (first, last + 1) for part, first, last in ends.iter_rows()})
        named |= {name: found.select("part", key=name).drop_nulls().unique() for name in further}
    return spans


def _files_of_spans(files: TableFiles, spans: Sequence[tuple[int, int]]) -> list[list[tuple[Path, int, int]]]:
    """Return for each span of rows the files that hold them, and which of their rows."""
    ends = np.cumsum([rows for _, rows in files], dtype=np.int64)
    found = []
    for start, stop in spans:
        held = []
        for number in range(int(np.searchsorted(ends, start, side="right")), len(files)):
            path, rows = files[number]
            begin = int(ends[number]) - rows
            if begin >= stop:
                break
            if rows:
                held.append((path, max(start - begin, 0), min(stop - begin, rows)))
        found.append(held)
    return found


def _scan(files: TableFiles) -> pl.LazyFrame:
    return pl.scan_parquet([path for path, _ in files], glob=False)


def _count(files: TableFiles) -> int:
    return sum(rows for _, rows in files)


@lru_cache
def _columns(path: Path) -> frozenset[str]:
    return frozenset(pl.scan_parquet(path, glob=False).collect_schema())


@lru_cache(maxsize=2)  # of stages that are made side by side; those of stages that are done are not held
def _whole(sides: tuple[TableFiles, ...]) -> tuple[pl.DataFrame, ...]:
    return tuple(read_slice(files, 0, _count(files)) for files in sides)
