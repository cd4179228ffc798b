"""normloom tables."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from normloom.errors import UsageError
from normloom.flows.commands.common import DEFAULT_STORE, JsonOption, StoreOption, out


def tables(
    system: Annotated[str | None, typer.Argument(help="Only the tables of this system.")] = None,
    store: StoreOption = DEFAULT_STORE,
    json_: JsonOption = False,
) -> None:
    """List the newest table of each stage: rows, what left them, key and age.

    A table is stale when a table it stands on has been made anew since, with other content.
    """
    from normloom.stale import stale_stages
    from normloom.store import Store

    where = Store(store)
    systems = [system] if system else where.systems()
    newest = {name: where.newest(name) for name in systems}
    stale = {(name, stage): why for name in systems for stage, why in stale_stages(where, name).items()}
    manifests = [manifest for name in systems for manifest in newest[name]]
    if json_:
        rows = [
            {**_described(manifest, where), "stale": stale.get((manifest.system, manifest.stage))}
            for manifest in manifests
        ]
        print(json.dumps(rows))
        return
    if not manifests:
        raise UsageError(
            f"there are no tables{f' of {system}' if system else ''} in {where.root}: run normloom build first"
        )
    table = Table(box=None, pad_edge=False)
    table.add_column("view", no_wrap=True)
    for heading in ("rows", "dropped", "quarantined"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("key", overflow="ellipsis")  # what gives way in a narrow terminal
    table.add_column("created (UTC)", no_wrap=True)
    if stale:
        table.add_column("stale because", style="yellow")
    for manifest in manifests:
        counts = [f"{manifest.count(kind):,}" for kind in ("rows", "dropped", "quarantined")]
        why = [stale.get((manifest.system, manifest.stage), "")] if stale else []
        created = manifest.created[:16].replace("T", " ")
        table.add_row(f"{manifest.system}_{manifest.stage}", *counts, manifest.key, created, *why)
    out.print(table)


def _described(manifest: Any, store: Any) -> dict[str, Any]:
    return {
        "system": manifest.system,
        "stage": manifest.stage,
        "view": f"{manifest.system}_{manifest.stage}",
        "key": manifest.key,
        "rows": manifest.count("rows"),
        "dropped": manifest.count("dropped"),
        "quarantined": manifest.count("quarantined"),
        "created": manifest.created,
        "path": str(store.table_directory(manifest.ref)),
    }
