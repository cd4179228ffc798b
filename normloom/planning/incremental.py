"""Parts that an earlier table has made of the same rows: they are taken over, and only what read other rows is made.

A row that is gone or new would shift the bounds of all later parts. So a table is cut where the earlier one was: its
parts keep their rows, less those that are gone; new rows join the part before them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import polars as pl

from normloom.core.compared import Compared
from normloom.core.errors import StoreError
from normloom.core.stage import Stage
from normloom.core.table import Manifest, PartRecord
from normloom.planning.costs.estimate import history
from normloom.planning.keys import recipe
from normloom.planning.looked_up import rows_with_others
from normloom.planning.unshared import AFTER, Checked, alike, checked, unshared, with_checksums
from normloom.store.parts import scan_parts
from normloom.store.store import Store
from normloom.workers.parts.job import PartJob, TableFiles
from normloom.workers.parts.reads import parted, rows_digest, schema_of, side_columns, sides_digest, with_spans

Bounds = list[tuple[int, int]]  # first row of each part, and the one after its last
Run = tuple[int | None, int]  # rows that follow each other: the part that they were in (None: they are new), how many


def earlier_table(store: Store, system: str, stage: Stage, fields: Mapping[str, Any]) -> Manifest | None:
    """Return the newest table of a stage that differs only in the rows that it read, None if there is none."""
    if stage.part_rows is None or not stage.inputs:
        return None
    compares = stage.compares is not None
    wanted = recipe(fields, compares=compares)
    for table in _tables(store, system, stage.name):
        if any(part.reads for part in table.parts) and recipe(table.key_fields, compares=compares) == wanted:
            return table
    return None


def _tables(store: Store, system: str, stage: str) -> Iterator[Manifest]:
    """Yield the tables of a stage, newest first; the others are not read unless they are asked for."""
    if newest := store.current(system, stage):
        yield newest
    yield from reversed(history(store, system, stage))


def regular(rows: int, size: int | None) -> Bounds:
    """Return the bounds of parts of `size` rows each, of one part if that is None; at least one part."""
    step = size or max(rows, 1)
    return [(start, min(start + step, rows)) for start in range(0, max(rows, 1), step)]


def bounds_after(
    store: Store, earlier: Manifest, files: TableFiles, checksums: Mapping[Path, str], size: int
) -> Bounds:
    """Return the bounds of parts of at most `size` of the rows in `files`, cut where an earlier table was."""
    rows = sum(count for _, count in files)
    try:
        before = [file for ref in earlier.inputs for file in checked(store, ref)]
    except StoreError:  # removed or damaged meanwhile
        return regular(rows, size)
    if not rows:
        return regular(rows, size)
    placed = _placed(with_checksums(files, checksums), before, [part.stop for part in earlier.parts])
    return cut(placed, len(earlier.parts), size)


def bounds_around(done: Mapping[int, PartRecord], rows: int, size: int) -> Bounds | None:
    """Return the bounds of all parts of a table that has some of them, None if these leave no way to cut the rest."""
    found: Bounds = []
    end = 0
    for index in sorted(done):
        gap = regular(done[index].start - end, size) if done[index].start > end else []
        found += [(end + start, end + stop) for start, stop in gap]
        if len(found) != index or done[index].start < end:
            return None
        found.append((done[index].start, done[index].stop))
        end = done[index].stop
    rest = regular(rows - end, size) if rows > end else []
    return [*found, *((end + start, end + stop) for start, stop in rest)] if end <= rows else None


def cut(placed: Sequence[Run], parts: int, size: int) -> Bounds:
    """Return the bounds of parts of rows, cut as those are that are `placed` among the `parts` of another table.

    Rows that have changed their order, so that these bounds would make many more parts, are cut regularly.
    """
    runs: list[int] = []
    last = None
    new = 0  # rows before the first that has a place
    for part, length in placed:
        if part is None and last is None:
            new += length
        elif part is None or part == last:
            runs[-1] += length
        else:
            runs.append(new + length)
            last, new = part, 0
    runs += [new] if new else []
    found: Bounds = []
    start = 0
    for length in runs:
        found += [(start + first, start + stop) for first, stop in regular(length, size)]
        start += length
    usual = regular(start, size)
    return found if len(found) <= parts + len(usual) else usual


def _placed(now: Sequence[Checked], before: Sequence[Checked], stops: Sequence[int]) -> list[Run]:
    """Return in which part the rows of the files `now` were, given where the parts of all rows `before` stop.

    Only of files that one of the tables does not have the rows are read.
    """
    ends = [0, *accumulate(rows for (_, rows), _ in before)]
    same = {checksum: place for place, (_, checksum) in reversed(list(enumerate(before)))}
    held = {checksum for _, checksum in now}
    others = [place for place, (_, checksum) in enumerate(before) if checksum not in held or same[checksum] != place]
    left = [one for one in now if one[1] not in same]
    there = [run for place in others for run in _runs(ends[place], ends[place + 1], stops)]
    there_stop = [*accumulate(length for _, length in there)]
    moved = iter(_moved(tuple(before[place][0] for place in others), tuple(file for file, _ in left)))
    runs = list[Run]()
    for (_, rows), checksum in now:
        if checksum in same:
            begin = ends[same[checksum]]
            runs += _runs(begin, begin + rows, stops)
            continue
        for at, length in next(moved):
            if at is None:
                runs.append((None, length))
            else:
                runs += ((there[number][0], some) for number, some in _runs(at, at + length, there_stop))
    return runs


@lru_cache(maxsize=4)  # other stages read the same tables
def _moved(before: TableFiles, now: TableFiles) -> list[list[Run]]:
    """Return the rows of each of the files `now` in runs that stood together in the files `before`.

    A run is the place of its first row among all rows before (None: its rows are new), and how many rows it has.
    """
    old, new = _ids(before), _ids(now)
    head, tail = alike(old, new)
    known = pl.DataFrame({"id": old[head : len(old) - tail]}).with_row_index("at", head).unique("id", keep="first")
    between = pl.DataFrame({"id": new[head : len(new) - tail]}).join(known, on="id", how="left", maintain_order="left")
    first, last = (pl.int_range(*ends, eager=True) for ends in ((0, head), (len(old) - tail, len(old))))
    places = pl.concat([first, between["at"].cast(pl.Int64), last])
    runs = []
    for (_, rows), stop in zip(now, accumulate(rows for _, rows in now), strict=True):
        at = places[stop - rows : stop]
        lengths = (at - pl.int_range(rows, eager=True)).rle().struct.field("len")
        runs.append([*zip(at.gather(lengths.cum_sum() - lengths), lengths, strict=True)])
    return runs


def _runs(start: int, stop: int, stops: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the parts, given by their `stops`, that hold rows `start` to `stop`, and how many rows each holds."""
    while start < stop:
        part = bisect_right(stops, start)
        end = min(stops[part], stop)
        yield part, end - start
        start = end


def taken_over(
    store: Store,
    earlier: Manifest,
    jobs: Sequence[PartJob],
    *,
    stage: Stage,
    files: TableFiles,
    checksums: Mapping[Path, str],
) -> Iterator[PartRecord]:
    """Yield the whole parts of an earlier table that were made of the rows of one of the jobs, as parts of this one.

    `files` hold all rows that the stage reads; `checksums` are those of them and of its side tables' files.

    What the world and not a row put into quarantine is made again. So is, of a stage that `compares`, what lost to a
    row that is no longer there, or might lose to one that is new.
    """
    directory = store.table_directory(earlier.ref)
    reusable = [part for part in earlier.parts if part.reads and part.settled]
    by_place = {parted(part.places)[0]: part for part in reusable if part.places}
    by_rows = {parted(part.reads)[0]: part for part in reusable}
    others = _others(store, earlier, jobs[0], stage.compares, checksums) if stage.compares and jobs else Others()
    if others is None:
        return

    @cache
    def moved() -> list[int] | None:
        sides = jobs[0].sides
        columns = [side_columns(jobs[0], number) for number in range(len(sides))]
        return rows_with_others(store, earlier, files, sides, stage.looks_up, columns, checksums=checksums)

    if stage.looks_up and moved() is None:
        jobs = with_spans(jobs)  # what each looks up is read, and compared by digest
    for job in jobs:
        part = _made_of(job, by_place, by_rows, moved) if len(job) else None
        if part and store.holds(directory, part) and not _touched(directory, part, others, stage):
            place = {"index": job.index, "start": job.start, "stop": job.stop, "places": job.places}
            yield part.model_copy(update=place)


def _made_of(
    job: PartJob,
    by_place: Mapping[str, PartRecord],
    by_rows: Mapping[str, PartRecord],
    moved: Callable[[], Sequence[int] | None],
) -> PartRecord | None:
    """Return the part that was made of the rows of a job; rows are read only if they are not where they were.

    `moved` says which rows look up other rows of side tables, None if it cannot.
    """
    rows, sides = parted(job.places)
    part = by_place.get(rows) or by_rows.get(rows_digest(job))
    if part is None:
        return None
    if job.looks_up and (at := moved()) is not None:
        return part if bisect_left(at, job.start) == bisect_left(at, job.stop) else None
    if not job.looks_up and part.places and parted(part.places)[1] == sides:
        return part
    return part if parted(part.reads)[1] == sides_digest(job) else None


@dataclass(frozen=True)
class Others:
    """Rows of side tables that an earlier table read and this one does not (their ids), and those that are new."""

    gone: Set[str] = frozenset()
    new: Sequence[pl.DataFrame] = ()


def _others(
    store: Store, earlier: Manifest, job: PartJob, compared: Compared, checksums: Mapping[Path, str]
) -> Others | None:
    """Return what became of the rows of side tables; None if those that stayed are not the same, in the same order."""
    gone: set[str] = set()
    new: list[pl.DataFrame] = []
    try:
        before = [checked(store, ref) for ref in earlier.sides[: len(job.sides)]]
    except StoreError:  # removed or damaged meanwhile
        return None
    for old, files in zip(before, job.sides, strict=True):
        lone, other = unshared(old, with_checksums(files, checksums))
        schema = schema_of(files)
        if schema != schema_of(lone.table):
            return None
        compares = schema if compared.columns is None else compared.columns
        columns = ["row_id", *(name for name in compares if name in schema and name != "row_id")]
        rows, now = lone.rows(*columns), other.rows(*columns)
        stayed = rows.join(now, on="row_id", how="semi", maintain_order="left")
        if not stayed.equals(now.join(rows, on="row_id", how="semi", maintain_order="left")):
            return None
        gone |= set(rows.join(now, on="row_id", how="anti")["row_id"])
        new.append(now.join(rows, on="row_id", how="anti", maintain_order="left").drop(AFTER))
    return Others(gone, [rows for rows in new if rows.height])


def _touched(directory: Path, part: PartRecord, others: Others, stage: Stage) -> bool:
    """Return whether a part might be another for the rows of side tables that have gone or come."""
    if others.gone and others.gone & winners(directory, part):
        return True
    if not others.new or stage.compares is None:
        return False
    rows, dropped = (scan_parts(directory, [part], kind).collect() for kind in ("rows", "dropped"))
    return any(stage.compares.touches(rows, dropped, new, stage.given) for new in others.new)


def winners(directory: Path, part: PartRecord) -> set[str]:
    """Return the rows for which a part dropped something."""
    if not part.files["dropped"].rows:
        return set()
    return set(scan_parts(directory, [part], "dropped").select("winner").collect()["winner"].drop_nulls())


def _ids(files: TableFiles) -> pl.Series:
    if not files:
        return pl.Series(dtype=pl.String)
    return pl.scan_parquet([path for path, _ in files], glob=False).select("row_id").collect()["row_id"]
