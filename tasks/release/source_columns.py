"""The columns of a user's source that no stage reads, on their way from the source to the release.

They are a table of their own, joined where the release is made: what changes in them alone remakes no other table.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import polars as pl

from normloom.core.contract import RESERVED
from normloom.core.fan_out import each
from normloom.core.stage import Output, Stage, quarantined, quarantined_frame
from normloom.readers import LIBRARIES, Keep, Located, Source, read_source
from normloom.schemas import tables
from normloom.steps.step import step
from normloom.tasks.prompts.ingest import Prompts

PREFIX = "source_"

log = logging.getLogger("normloom")


@step(makes=tables.SOURCE_COLUMNS, reads=("source_row",), fan_out=each(), libraries=LIBRARIES)
def source_columns(
    rows: pl.DataFrame, *, source: Located, keep: Keep, used: tuple[str, ...], reserved: tuple[str, ...]
) -> Output:
    """Return for each row of the source that was taken in the columns that are kept, with types of their own.

    Of all columns those in `used` are left out, which the release has under names of its own. A column named as one
    of `reserved`, the columns of the release, or as Normloom's own gets a prefix. A row is quarantined, and released
    without them, if they cannot be read.
    """
    read = columns_of(source, keep, used)
    names = released_names(read.rows.columns[1:], reserved)
    say_names(source, names)
    taken = rows.select("row_id", "source_row")
    unread = {number: (rule, reason) for number, rule, reason, _ in read.rejected}
    is_unread = pl.col("source_row").is_in(list(unread))
    aside = [quarantined(row, *unread[row["source_row"]]) for row in taken.filter(is_unread).to_dicts()]
    kept = taken.filter(~is_unread)
    return Output(
        rows=kept.join(read.rows.rename(names), on="source_row", how="left", maintain_order="left"),
        quarantined=quarantined_frame(aside),
    )


def say_names(source: Located, names: Mapping[str, str]) -> None:
    """Tell which columns are released under another name."""
    for name, released in names.items():
        if name != released:
            log.info("%s: column %r is released as %r", source.name, name, released)


def columns_of(source: Located, keep: Keep, used: Sequence[str]) -> Source:
    """Return the records of a source with the columns that are kept; of all columns without those in `used`."""
    read = read_source(source, text_column=None, keep=keep)
    return replace(read, rows=read.rows.drop([name for name in used if keep == "all" and name in read.rows.columns]))


def released_names(columns: Sequence[str], reserved: Sequence[str]) -> dict[str, str]:
    """Return the names under which columns are released: their own, or with as many prefixes as make them unique.

    Names that differ in case only count as the same, as they do in SQL.
    """
    ours = {name.casefold() for name in (*RESERVED, *reserved)}
    own = [name for name in columns if name.casefold() not in ours]
    taken = ours | {name.casefold() for name in own}
    seen: set[str] = set()
    names = {}
    for name in columns:
        released = name
        if name.casefold() in ours or name.casefold() in seen:
            while released.casefold() in taken:
                released = PREFIX + released
            taken.add(released.casefold())
        seen.add(name.casefold())
        names[name] = released
    return names


def own_columns(ingested: Stage, source: Located, args: Prompts, *, released: Iterable[str]) -> Stage | None:
    """Return the stage that keeps columns of a source of prompts, None if none are kept.

    `released` are the columns that the release has without them.
    """
    if not args.keep:
        return None
    used = (args.conversations(source) or args.text_column,)
    return source_columns(ingested, source=source, keep=args.keep, used=used, reserved=tuple(released))
