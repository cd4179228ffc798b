"""normloom query."""

from __future__ import annotations

from typing import Annotated

import typer

from normloom.cli.common import DEFAULT_STORE, JsonOption, StoreOption, err, out
from normloom.core.formats.json_text import json_text


def query(
    sql: Annotated[str, typer.Argument(help="A SELECT; each stage's newest table is a view such as savacu_classify.")],
    store: StoreOption = DEFAULT_STORE,
    limit: Annotated[int, typer.Option(min=1, help="Rows to show as text; --json prints all.")] = 40,
    json_: JsonOption = False,
) -> None:
    """Run a DuckDB query over the tables.

    Views: SYSTEM_STAGE, SYSTEM_STAGE_dropped and SYSTEM_STAGE_quarantined. A terminal shows each row on one line, or as
    a block if its columns do not fit; other outputs get full rows.

    Examples:

        normloom query "FROM savacu_publish SELECT prompt, alignment, response LIMIT 5"

        normloom query "SHOW TABLES"

        normloom query "DESCRIBE savacu_publish"
    """
    from normloom.cli.output.row_text import show_rows
    from normloom.store.store import Store
    from normloom.store.views import query as run_query

    names, rows = run_query(Store(store), sql, limit=None if json_ else limit + 1)
    if json_:
        print(json_text([dict(zip(names, row, strict=True)) for row in rows]))
        return
    show_rows(out, names, rows[:limit])
    if len(rows) > limit:
        err.print(f"[dim]first {limit} rows; --limit shows more, --json all")
