"""The columns of ratings, and of conversations in a file of their own, that no stage reads, for the release."""

from __future__ import annotations

import polars as pl

from normloom.core.errors import SourceError
from normloom.core.fan_out import each
from normloom.core.stage import Output, Stage
from normloom.readers import LIBRARIES, Keep, Located, column_names, read_source
from normloom.readers.wanted import columns_hint
from normloom.schemas import tables
from normloom.schemas.people import demo_tables
from normloom.steps.step import step
from normloom.tasks.panel.ingest_dices import ANSWER
from normloom.tasks.release.source_columns import columns_of, released_names, say_names

_USED = (ANSWER, *(name for name in demo_tables.RATINGS.columns if name not in {"source_row", "answer", "group"}))


@step(makes=tables.SOURCE_COLUMNS, name="source_columns", fan_out=each(), libraries=LIBRARIES)
def kept_columns(
    rows: pl.DataFrame, *, source: Located, keep: Keep, items: Located | None = None, keep_items: Keep = ()
) -> Output:
    """Return for each rating the kept columns of its record, then those of its conversation's record."""
    own = rows.select("row_id", "source_row", "item_id")
    if keep:
        read = columns_of(source, keep, _USED).rows
        own = _beside(own, read, left="source_row", right="source_row")
    if items and keep_items:
        ids = read_source(items, text_column=None, keep=("item_id",))
        known = ids.rows.with_columns(ids.text("item_id"))
        read = columns_of(items, keep_items, _USED).rows.join(known, on="source_row").drop("source_row")
        own = _beside(own, read, left="item_id", right="item_id")
    names = released_names(own.columns[3:], tuple(demo_tables.RELEASED.columns))
    say_names(source, names)
    return Output(rows=own.drop("item_id").rename(names))


def _beside(rows: pl.DataFrame, own: pl.DataFrame, *, left: str, right: str) -> pl.DataFrame:
    """Return the rows with other columns after theirs; a name that is taken gets a prefix."""
    names = released_names([name for name in own.columns if name != right], rows.columns)
    renamed = own.rename({**names, right: "_own"})
    return rows.join(renamed, left_on=left, right_on="_own", how="left", maintain_order="left", validate="m:1")


def rating_columns(ratings: Stage, source: Located, items: Located | None, *, keep: Keep) -> Stage | None:
    """Return the stage that keeps columns of ratings and conversations, None if none are kept.

    Raises SourceError for a name that neither source has.
    """
    if not keep:
        return None
    here, there = (column_names(one) if one else [] for one in (source, items))
    if keep != "all" and (absent := [name for name in keep if name not in {*here, *there}]):
        hint = columns_hint(absent[0], [*here, *there])
        raise SourceError(f"{source.name} has no column {absent[0]!r}: {hint}")
    return kept_columns(
        ratings,
        source=source,
        items=items,
        keep=keep if keep == "all" else tuple(name for name in keep if name in here),
        keep_items=keep if keep == "all" else tuple(name for name in keep if name in there and name not in here),
    )
