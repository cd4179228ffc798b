"""Where the rows are that a part reads: files by checksum, and rows in them. With the same places, rows are the same.

A part is told its own files and no others: a large table has thousands.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from normloom.core.errors import ContractError
from normloom.core.table import PartRecord
from normloom.workers.parts.having import having
from normloom.workers.parts.job import PartJob, Span, TableFiles
from normloom.workers.parts.owners import Owners
from normloom.workers.parts.reads import joined, parted, rows_digest, rows_of

Checksums = Mapping[Path, str]
Owned = Mapping[str, Sequence[Set[str]]]  # by the digest of a part's rows: the files with rows of its own, side by side
_AT_ONCE = 1 << 18  # rows of which ids are read together
_SHOWN = 24  # hex digits of a checksum that tell files apart


def with_places(jobs: list[PartJob], checksums: Checksums, earlier: Sequence[PartRecord] = ()) -> list[PartJob]:
    """Return the parts of a stage, each with the files that may hold rows of its own, and its places.

    Files of side tables of which the parts of an `earlier` table say who has rows in them are not searched again.
    Raises ContractError if a side row belongs to no input row: no part would get it.
    """
    first = jobs[0]
    if first.inputs is None:
        return [*jobs]
    held = _files_of_spans(first.inputs, [(job.start, job.stop) for job in jobs])
    rows = [_place(some, checksums) for some in held]
    found: list[dict[str, Any]] = _own_inputs(jobs)
    own = [""] * len(jobs)
    if first.inputs and first.sides_on:
        owned, digests = _owned(earlier)
        read = rows
        if owned:
            placed = zip(jobs, rows, strict=True)
            read = [digests.get(place) or rows_digest(having(job, places=place)) for job, place in placed]
        sides = _own_sides(jobs, read, checksums, owned)
        found = [{**one, "sides": files} for one, files in zip(found, sides, strict=True)]
        own = [_listed(files, checksums) for files in sides]
    if first.reusable:
        places = map(joined, rows, own)
        found = [{**one, "places": place} for one, place in zip(found, places, strict=True)]
    return [having(job, **one) for job, one in zip(jobs, found, strict=True)]


def _own_inputs(jobs: Sequence[PartJob]) -> list[dict[str, Any]]:
    """Return of each part the files that hold its rows, and how many rows are before them, by the names of the job."""
    files = jobs[0].inputs or ()
    ends = np.cumsum([0, *(rows for _, rows in files)], dtype=np.int64)
    first = (np.searchsorted(ends, [job.start for job in jobs], side="right") - 1).tolist()
    last = np.searchsorted(ends, [job.stop for job in jobs]).tolist()
    before = ends.tolist()
    return [
        {"inputs": files[begin:end], "before": before[begin]} if begin < end else {}
        for begin, end in zip(first, last, strict=True)
    ]


def _place(held: Sequence[tuple[Path, int, int]], checksums: Checksums) -> str:
    lines = "\n".join(f"{checksums.get(path, path)} {first} {last}" for path, first, last in held)
    return hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()


def _shown(path: Path, checksums: Checksums) -> str:
    return checksums.get(path, str(path))[:_SHOWN]


def _listed(sides: Sequence[TableFiles], checksums: Checksums) -> str:
    """Return the files of side tables as one text: `0:CHECKSUM,CHECKSUM 1:CHECKSUM`."""
    names = (",".join(_shown(path, checksums) for path, rows in files if rows) for files in sides)
    return " ".join(f"{number}:{listed}" for number, listed in enumerate(names))


def _owned(parts: Sequence[PartRecord]) -> tuple[Owned, Mapping[str, str]]:
    """Return the files of side tables that the parts of a table were made of, and the digests of their rows by place.

    Both are empty if any part does not list its files.
    """
    owned: dict[str, list[Set[str]]] = {}
    digests: dict[str, str] = {}
    for part in parts:
        (place, sides), (digest, _) = parted(part.places), parted(part.reads)
        if ":" not in sides or not digest:
            return {}, {}
        digests[place] = digest
        owned[digest] = [frozenset(one.partition(":")[2].split(",")) - {""} for one in sides.split(" ")]
    return owned, digests


def _own_sides(
    jobs: Sequence[PartJob], read: Sequence[str], checksums: Checksums, owned: Owned
) -> list[tuple[TableFiles, ...]]:
    """Return of each part the files of side tables in which it has rows; `read` tells what rows it reads."""
    sides = jobs[0].sides
    own = [_files_by_part(jobs, number, read, checksums, owned) for number in range(len(sides))]
    return [  # a part with no rows of its own there still needs a file for the columns
        tuple(of.get(job.index, files[:1]) for files, of in zip(sides, own, strict=True)) for job in jobs
    ]


def _files_by_part(
    jobs: Sequence[PartJob], side: int, read: Sequence[str], checksums: Checksums, owned: Owned
) -> dict[int, TableFiles]:
    """Return the files of a side table in which each part has rows.

    A file is not read again if all parts that had rows in it are there, made of the same rows: no other can have any.
    """
    files = jobs[0].sides[side]
    names = [_shown(path, checksums) for path, _ in files]
    before = {digest: sides[side] for digest, sides in owned.items() if side < len(sides)}
    gone = set[str]().union(*(before[digest] for digest in before.keys() - set(read)))
    known = set[str]().union(*before.values()) - gone
    number = {name: position for position, name in enumerate(names) if name in known}
    numbers = {
        job.index: {number[name] for name in before.get(digest, ()) if name in number}
        for job, digest in zip(jobs, read, strict=True)
    }
    if others := [position for position, name in enumerate(names) if name not in known and files[position][1]]:
        likely = [job for job, digest in zip(jobs, read, strict=True) if not before.get(digest, {""}) <= known]
        for part, position in _searched(jobs, likely, [files[position] for position in others]):
            numbers[part].add(others[position])
    return {part: tuple(files[position] for position in sorted(found)) for part, found in numbers.items() if found}


def _searched(
    jobs: Sequence[PartJob], likely: Sequence[PartJob], files: Sequence[tuple[Path, int]]
) -> set[tuple[int, int]]:
    """Return which parts have rows in which of some files of a side table: pairs of their numbers.

    Those that are `likely` to have some come first: the ids of the others' rows may not have to be read.
    """
    found, lost = _pairs(_owners(jobs, likely), files, jobs[0].sides_on or "")
    if lost and len(likely) < len(jobs):
        found, lost = _pairs(_owners(jobs, jobs), files, jobs[0].sides_on or "")
    if lost:
        column = jobs[0].sides_on or ""
        [row_id] = _scan(files).filter(pl.col(column).eq_missing(lost[0])).select("row_id").head(1).collect()["row_id"]
        raise ContractError(
            f"stage {jobs[0].stage!r}: row {row_id} of a side table belongs to row {lost[0]} "
            f"by column {column!r}, which is not an input row"
        )
    return found


def _pairs(
    owners: Owners, files: Sequence[tuple[Path, int]], column: str
) -> tuple[set[tuple[int, int]], list[str | None]]:
    """Return the pairs of a part and a file with rows of its own, and an id that no part has, if there is one."""
    pairs = set[tuple[int, int]]()
    number = 0
    for some in _blocks(files):
        numbers = np.repeat(np.arange(number, number + len(some), dtype=np.uint32), [rows for _, rows in some])
        number += len(some)
        named = _scan(some).select(key=column).collect().with_columns(file=pl.Series(numbers))
        first = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in ("key", "file"))
        found = owners.find(named.filter(first))  # of rows that follow each other and belong to the same one
        if lost := found.filter(pl.col("part").is_null()).head(1)["key"].to_list():
            return pairs, lost
        pairs.update(found.select("part", "file").unique().iter_rows())
    return pairs, []


def _owners(jobs: Sequence[PartJob], some: Sequence[PartJob]) -> Owners:
    """Return whose the rows of some of the parts are."""
    if len(some) == len(jobs):
        return Owners(_scan(jobs[0].inputs or ()).select("row_id").collect()["row_id"], _parts_of(jobs))
    held = zip(some, _own_inputs(some), strict=True) if some else ()
    own = [rows_of(having(job, reads=(), **one))["row_id"] for job, one in held]
    return Owners(pl.concat([pl.Series("row_id", [], dtype=pl.String), *own]), _parts_of(some))


def _parts_of(jobs: Sequence[PartJob]) -> npt.NDArray[np.int32]:
    """Return for each row its part."""
    return np.repeat(np.array([job.index for job in jobs], dtype=np.int32), [len(job) for job in jobs])


def _blocks(files: Sequence[tuple[Path, int]]) -> Iterator[Sequence[tuple[Path, int]]]:
    """Yield the files in order, as many at once as have about `_AT_ONCE` rows; one block at least if there are any."""
    block, rows = list[tuple[Path, int]](), 0
    for file in files:
        block.append(file)
        rows += file[1]
        if rows >= _AT_ONCE:
            yield block
            block, rows = [], 0
    if block:
        yield block


def _files_of_spans(files: TableFiles, spans: Sequence[Span]) -> list[list[tuple[Path, int, int]]]:
    """Return for each span of rows the files that hold them, and which of their rows."""
    ends = [*accumulate(rows for _, rows in files)]
    found = []
    for start, stop in spans:
        held = []
        for number in range(bisect_right(ends, start), len(files)):
            path, rows = files[number]
            begin = ends[number] - rows
            if begin >= stop:
                break
            if rows:
                held.append((path, max(start - begin, 0), min(stop - begin, rows)))
        found.append(held)
    return found


def _scan(files: Sequence[tuple[Path, int]]) -> pl.LazyFrame:
    return pl.scan_parquet([path for path, _ in files], glob=False)
