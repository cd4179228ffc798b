"""normloom trace."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from normloom.cli.common import DEFAULT_STORE, JsonOption, StoreOption, out, stored_as
from normloom.core.formats.json_text import json_text


def trace(
    row_id: Annotated[str, typer.Argument(help="The row's id, or its first 6 digits or more.", show_default=False)],
    forward: Annotated[
        bool, typer.Option("--forward", help="Trace what was derived from the row instead of its origin.")
    ] = False,
    system: Annotated[str | None, typer.Option(help="Search only the tables of this system.")] = None,
    store: StoreOption = DEFAULT_STORE,
    json_: JsonOption = False,
) -> None:
    """Show one row's history, over the newest table of each stage.

    Backward: from the row through its parents to the ingested rows, with what each stage changed, what was dropped or
    quarantined on the way, and what became of its siblings (other rows made from the same parent, such as the rejected
    candidates for a prompt). Forward: everything derived from the row, as a take-down needs. Dropped and quarantined
    rows are found too.

    Examples:

        normloom query "FROM savacu_publish SELECT row_id, response LIMIT 5"

        normloom trace 3fa2b1c9

        normloom trace 7d01e6aa --forward --json | jq -r '.rows[] | select(.stage == "publish") | .row_id'

    With --json one object:
    system, row_id, direction (backward or forward);
    rows: stage, row_id, parents and values (every column), the row itself first, nearer ones before farther ones;
    edges: parent and child;
    ledger: stage, kind (dropped or quarantined), row_id (the input row, or the one whose attempt it was), rule,
    reason, winner, payload;
    siblings: stage, row_id, parents, values, beside (the rows on the path with the same parent), reached (the
    stages where it is last found, if it was kept) and ledger (what took it out);
    missing: parents that the newest tables no longer have;
    models: product, wrote (tables), learned_from (rows by table) and rows (ids: forward those on the way that it
    learned from, backward the first few).
    """
    from rich.text import Text

    from normloom.cli.output.trace_tree import trained, tree_of
    from normloom.lineage.trace import trace as trace_row
    from normloom.store.store import Store

    found = trace_row(Store(store), row_id, system=stored_as(system), forward=forward)
    if json_:
        print(json_text(found.as_json()))
        return
    out.print(tree_of(found), highlight=False)
    for model in found.models:
        out.print(trained(model, forward=forward), highlight=False, soft_wrap=True)
    counts = Counter(row.stage for row in found.rows[1:])
    told = ", ".join(f"{count:,} {stage}" for stage, count in counts.items()) or "no other row"
    out.print(Text.assemble(("descendants: " if forward else "ancestors: ", "bold"), told))
