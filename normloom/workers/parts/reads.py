"""What a part reads: its rows, its own rows of side tables, and the digests that tell whether these are the same."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import polars as pl

from normloom.core.errors import ContractError
from normloom.core.rows.blocks import Blocks
from normloom.store.parts import ROW_GROUP, forget_row_groups, read_slice
from normloom.workers.parts.having import having
from normloom.workers.parts.job import PartJob, Span, TableFiles

_DIGESTS: dict[tuple[str, tuple[str, ...]], str] = {}  # of input rows, by their place and columns
_MOST_DIGESTS = 100_000

BLOCK = 4 * ROW_GROUP  # rows of a table that are read together


def rows_of(job: PartJob) -> pl.DataFrame:
    """Return the input rows of a part, with no other columns than its step reads."""
    return _cut(job, _only(job.reads, job.inputs or ()))


def _cut(job: PartJob, columns: tuple[str, ...] | None) -> pl.DataFrame:
    return read_slice(job.inputs or (), job.start - job.before, job.stop - job.before, columns=columns)


def blocks_of(job: PartJob) -> Blocks:
    """Return the input rows of a part in blocks, with no other columns than its step reads."""
    files = job.inputs or ()
    there = schema_of(files)
    starts = range(job.start, job.stop, BLOCK)

    def read() -> Iterator[pl.DataFrame]:
        return (rows_of(having(job, start=start, stop=min(start + BLOCK, job.stop))) for start in starts)

    return Blocks({name: there[name] for name in _only(job.reads, files) or there}, len(job), read)


def sides_of(job: PartJob, rows: pl.DataFrame) -> list[pl.DataFrame]:
    """Return a part's side tables, or what of them belongs to its rows."""
    columns = tuple(side_columns(job, number) for number in range(len(job.sides)))
    if job.sides_on:
        belongs = pl.col(job.sides_on).is_in(rows["row_id"].implode())
        sides = (scan(files).filter(belongs) for files in job.sides)
        return [side.select(names or pl.all()).collect() for side, names in zip(sides, columns, strict=True)]
    if job.looks_up:
        return _looked_up(job, rows, columns)
    return list(_whole(job.sides, columns))


def side_columns(job: PartJob, number: int) -> tuple[str, ...] | None:
    """Return the columns of a side table that a part reads, those that connect it included; None for all."""
    named = job.side_reads[number] if number < len(job.side_reads) else None
    if named is None:
        return None
    return _only((*job.looks_up, *((job.sides_on,) if job.sides_on else ()), *named), job.sides[number])


def with_spans(jobs: Sequence[PartJob]) -> list[PartJob]:
    """Return the parts with the first and last place (exclusive) of the rows that each looks up in side tables."""
    if not (jobs and jobs[0].inputs and jobs[0].looks_up):
        return [*jobs]
    first = jobs[0]
    named = _named(jobs)
    spans: list[dict[int, Span]] = []
    for files, column in zip(first.sides, first.looks_up, strict=False):
        side = scan(files)
        schema = side.collect_schema()
        key = column if column in schema else "row_id"
        further = [name for name in first.looks_up if name in schema and name not in {*named, key}]
        rows_of_side = side.select(pl.col(key).alias("key"), *further).with_row_index("_at").collect()
        found = named.get(column, named["row_id"]).join(rows_of_side, on="key")
        ends = found.group_by("part").agg(first=pl.col("_at").min(), last=pl.col("_at").max())
        spans.append({part: (begin, last + 1) for part, begin, last in ends.iter_rows()})
        named |= {name: found.select("part", key=name).drop_nulls().unique() for name in further}
    return [having(job, side_spans=tuple(of.get(job.index, (0, 0)) for of in spans)) for job in jobs]


def _named(jobs: Sequence[PartJob]) -> dict[str, pl.DataFrame]:
    """Return for each column by which parts look rows up which values the rows of each part have (`part`, `key`).

    Their ids are one of these columns: rows are looked up by id if no other column names them.
    """
    there = schema_of(jobs[0].inputs or ())
    columns = ("row_id", *(name for name in jobs[0].looks_up if name in there))
    found: dict[str, list[pl.DataFrame]] = {name: [] for name in columns}
    for job in jobs:
        rows = _cut(job, columns)
        for name in columns:
            keys = rows.select(key=pl.col(name).unique())
            found[name].append(keys.select(pl.lit(job.index, dtype=pl.Int32).alias("part"), "key"))
    return {name: pl.concat(pieces) for name, pieces in found.items()}


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
    there = schema_of(job.inputs or ())
    read = _only(job.reads, job.inputs or ()) or there
    columns = tuple(name for name in there if name in read)  # in the table's order: stages name the same ones in others
    known = (parted(job.places)[0], columns)
    if job.places and known in _DIGESTS:
        return _DIGESTS[known]
    found = digest_of([(rows_of(job) if rows is None else rows)[[*columns]]])
    if job.places:
        if len(_DIGESTS) >= _MOST_DIGESTS:
            _DIGESTS.clear()
        _DIGESTS[known] = found
    return found


def sides_digest(job: PartJob) -> str:
    """Return the digest of a part's own rows of side tables; empty if its side tables are not cut."""
    if not (job.sides_on or job.looks_up):
        return ""
    return digest_of(sides_of(job, rows_of(having(job, reads=job.looks_up))))  # rows by what names their side rows


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


def _looked_up(job: PartJob, rows: pl.DataFrame, columns: Sequence[tuple[str, ...] | None]) -> list[pl.DataFrame]:
    """Return the rows of side tables that a part looks up.

    Each by a column of its rows, or of those found before; or else by a column of its own that holds ids of its rows.
    """
    found: list[pl.DataFrame] = []
    spans = job.side_spans or tuple((0, _count(files)) for files in job.sides)
    for files, span, column, wanted in zip(job.sides, spans, job.looks_up, columns, strict=False):
        side = read_slice(files, *span, columns=wanted)
        key = column if column in side.columns else "row_id"
        names = next((frame[column] for frame in (rows, *found) if column in frame.columns), None)
        if names is None:
            if key == "row_id" or column in schema_of(job.inputs or ()):
                raise ContractError(
                    f"stage {job.stage!r}: it looks side rows up by column {column!r}, which it does not read"
                )
            names = rows["row_id"]
        found.append(side.join(pl.DataFrame({key: names.unique()}), on=key, how="semi", maintain_order="left"))
    return found


def forget_tables() -> None:
    """Let go of what is held for the next part: side tables, and rows that were decoded with those of a part."""
    _whole.cache_clear()
    forget_row_groups()


def _only(names: tuple[str, ...] | None, files: TableFiles) -> tuple[str, ...] | None:
    """Return `row_id` and those of the names that are columns of a table; None for all columns."""
    if names is None or not files:
        return None
    there = schema_of(files)
    return tuple(dict.fromkeys(("row_id", *(name for name in names if name in there))))


def schema_of(files: TableFiles) -> Mapping[str, pl.DataType]:
    """Return the columns of a table with their types; none without files."""
    return _schema(files[0][0]) if files else {}


def scan(files: TableFiles) -> pl.LazyFrame:
    """Return the rows of a table, not yet read."""
    return pl.scan_parquet([path for path, _ in files], glob=False)


def _count(files: TableFiles) -> int:
    return sum(rows for _, rows in files)


@lru_cache
def _schema(path: Path) -> pl.Schema:
    return pl.scan_parquet(path, glob=False).collect_schema()


@lru_cache(maxsize=2)  # of stages that are made side by side
def _whole(sides: tuple[TableFiles, ...], columns: tuple[tuple[str, ...] | None, ...]) -> tuple[pl.DataFrame, ...]:
    read = zip(sides, columns, strict=True)
    return tuple(read_slice(files, 0, _count(files), columns=names) for files, names in read)
