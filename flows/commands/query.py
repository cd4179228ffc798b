"""normloom query."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from normloom.flows.commands.common import DEFAULT_STORE, JsonOption, StoreOption, err, escaped, out


def query(
    sql: Annotated[str, typer.Argument(help="A SELECT; each stage's newest table is a view such as savacu_classify.")],
    store: StoreOption = DEFAULT_STORE,
    limit: Annotated[int, typer.Option(min=1, help="Rows to show as text; --json gives all.")] = 40,
    json_: JsonOption = False,
) -> None:
    """Run a DuckDB query over the tables.

    Views: SYSTEM_STAGE, SYSTEM_STAGE_dropped and SYSTEM_STAGE_quarantined.
    """
    from normloom.store import Store
    from normloom.views import query as run_query

    names, rows = run_query(Store(store), sql, limit=None if json_ else limit + 1)
    if json_:
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], default=str, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(escape(name), overflow="fold")
    for row in rows[:limit]:
        table.add_row(*(escaped(value) for value in row))
    out.print(table)
    if len(rows) > limit:
        err.print(f"[dim]first {limit} rows; --limit shows more, --json all")
