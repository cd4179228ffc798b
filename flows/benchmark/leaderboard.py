"""The leaderboards of all builds together: the newest figures of each model on each data set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import polars as pl
from rich import box
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from normloom.core.rows.text import counted
from normloom.core.table import Manifest
from normloom.history.builds import locks
from normloom.store.store import Store
from normloom.tasks.benchmark.leaderboard import METRICS, with_ranks

if TYPE_CHECKING:
    from normloom.run.build import BuildResult

STAGE = "leaderboard"
COMPARABLE = ("dataset", "mode", "protocol")
ENTRY = (*COMPARABLE, "model", "model_id", "revision", "engine", "metric", "axis")
HEADLINES = {"detector": ("as", ""), "responder": ("alignment_rate", "joint")}  # what a mode is sorted by


def board_rows(store: Store, system: str = "benchmark") -> pl.DataFrame:
    """Return the newest figures of each model, data set and protocol over all builds, ranked among their like.

    Columns are those of the table `leaderboard`, with the last `build` that has it and when it was `created`.
    """
    newest: dict[str, str] = {}  # key of a table -> the last build that has it, oldest builds first
    for lock in locks(store, system):
        if (stage := lock.stages.get(STAGE)) and not stage.stale:
            newest.pop(stage.key, None)
            newest[stage.key] = lock.build
    tables = [(store.published(system, STAGE, key), build) for key, build in newest.items()]
    frames = [_read(table, build, store) for table, build in tables if table]
    if not frames:
        return pl.DataFrame()
    entries = pl.concat(frames, how="diagonal").unique(ENTRY, keep="last", maintain_order=True)
    return with_ranks(entries, *COMPARABLE, "metric", "axis")


def boards(rows: pl.DataFrame) -> Iterator[Table]:
    """Yield a table for each data set, mode and protocol, the best model first."""
    for (_, mode, protocol), group in rows.group_by(COMPARABLE, maintain_order=True):
        first = group.row(0, named=True)
        title = (
            f"{str(mode).capitalize()}: {first['source']}, {counted(first['items'])} ({first['dataset']}); {protocol}"
        )
        table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("model")
        columns = _columns(group)
        for metric, axis in columns:
            table.add_column(axis or metric, justify="right")
        if "build" in group.columns:
            table.add_column("build", style="dim")
        for entry in _entries(group, HEADLINES[str(mode)]):
            cells = {(row["metric"], row["axis"]): _cell(row) for row in entry.iter_rows(named=True)}
            one = entry.row(0, named=True)
            name = f"{one['model']} [dim]{escape(one['model_id'])}[/]"
            table.add_row(
                name, *(cells.get(column, "") for column in columns), *([one["build"]] if "build" in one else [])
            )
        yield table


def sections(result: BuildResult, store: Store) -> list[RenderableType]:
    """Return what the summary of a build shows: its own leaderboard."""
    return list(boards(store.scan(result[STAGE].ref).collect()))


def _read(table: Manifest, build: str, store: Store) -> pl.DataFrame:
    rows = store.scan(table.ref).drop("row_id", "parents").collect()
    return rows.with_columns(build=pl.lit(build), created=pl.lit(table.created))


def _columns(group: pl.DataFrame) -> list[tuple[str, str]]:
    there = dict.fromkeys(group.select("metric", "axis").iter_rows())
    order = list(METRICS)
    return sorted(there, key=lambda column: order.index(column[0]))


def _entries(group: pl.DataFrame, headline: tuple[str, str]) -> list[pl.DataFrame]:
    """Return the rows of each model, the best by the headline figure first and the unranked last."""
    metric, axis = headline

    def rank_of(entry: pl.DataFrame) -> float:
        ranks = entry.filter(metric=metric, axis=axis)["rank"].to_list()
        return float("inf") if not ranks or ranks[0] is None else float(ranks[0])

    entries = group.partition_by("model", "model_id", "revision", "engine", maintain_order=True)
    return sorted(entries, key=rank_of)


def _cell(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return "-"
    interval = "" if row["low"] is None else f" [dim]{row['low']:.2f}-{row['high']:.2f}[/]"
    return f"{row['value']:.3f}{interval}"
