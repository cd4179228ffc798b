"""normloom leaderboard."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from normloom.cli.common import DEFAULT_STORE, JsonOption, StoreOption, out
from normloom.core.errors import UsageError
from normloom.core.formats.json_text import json_text


def leaderboard(
    store: StoreOption = DEFAULT_STORE,
    mode: Annotated[Literal["detector", "responder"] | None, typer.Option(help="Only this mode.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only the data set whose digest starts with this.")] = None,
    json_: JsonOption = False,
) -> None:
    """Show the newest benchmark figures of each model across all builds, best first.

    Figures are grouped by the evaluated rows, the mode and how verdicts were reached: only these are comparable.

    Examples:

        normloom leaderboard

        normloom leaderboard --mode detector --json
    """
    import polars as pl

    from normloom.flows.benchmark.leaderboard import board_rows, boards
    from normloom.store.store import Store

    where = Store(store)
    rows = board_rows(where)
    if rows.is_empty() and not json_:
        raise UsageError(f"no leaderboard in {where.root} yet: run normloom build benchmark first")
    if rows.height and mode:
        rows = rows.filter(mode=mode)
    if rows.height and dataset:
        rows = rows.filter(pl.col("dataset").str.starts_with(dataset))
    if json_:
        print(json_text(rows.to_dicts()))
        return
    if rows.is_empty():
        raise UsageError("no measurement matches: leave out --mode or --dataset to see all")
    for board in boards(rows):
        out.print(board)
