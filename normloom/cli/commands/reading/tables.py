"""normloom tables."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from normloom.cli.common import DEFAULT_STORE, JsonOption, StoreOption, err, escaped, out, stored_as
from normloom.core.errors import UsageError
from normloom.core.formats.json_text import json_text

if TYPE_CHECKING:
    from normloom.core.table import Kind, Manifest

KINDS: tuple[Kind, ...] = ("rows", "dropped", "quarantined")
WIDTH_WITH_KEYS = 110


def tables(
    system: Annotated[str | None, typer.Argument(help="Only the tables of this system.")] = None,
    store: StoreOption = DEFAULT_STORE,
    json_: JsonOption = False,
) -> None:
    """List the newest table of each stage: rows, drops, quarantine, creation time and whether it is stale.

    A table is stale if a table that it was made from has been rebuilt since, with different content.
    """
    from normloom.history.removal.gc import old_tables
    from normloom.store.stale import stale_stages
    from normloom.store.store import Store

    where, system = Store(store), stored_as(system)
    if system:
        where.require(system)
    systems = [system] if system else where.systems()
    newest = {name: where.newest(name) for name in systems}
    stale = {(name, stage): why for name in systems for stage, why in stale_stages(where, name).items()}
    manifests = [manifest for name in systems for manifest in newest[name]]
    if json_:
        rows = [
            {**_described(manifest, where), "stale": stale.get((manifest.system, manifest.stage))}
            for manifest in manifests
        ]
        print(json_text(rows))
        return
    unreadable = [why for name in systems for why in where.unreadable(name)]
    if not manifests and not unreadable:
        where.require()
        raise UsageError(f"no tables{f' of {system}' if system else ''} in {where.root}: run normloom build first")
    out.print(_table(manifests, stale))
    for (name, stage), why in stale.items():
        out.print(f"[yellow]stale[/] {escaped(f'{name}_{stage}')}: {escaped(why)}", highlight=False, soft_wrap=True)
    for note in filter(None, (old_tables(where, name) for name in systems)):
        out.print(escaped(note), highlight=False, soft_wrap=True)
    for why in unreadable:
        out.print(f"[red]damaged[/] {escaped(why)}", highlight=False, soft_wrap=True)
    if stale:
        err.print("[dim]normloom build brings stale tables up to date")


def _table(manifests: list[Manifest], stale: Collection[tuple[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("view", overflow="ellipsis", no_wrap=True)
    for heading in KINDS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("created (UTC)", no_wrap=True)
    table.add_column("", no_wrap=True, style="yellow")
    keys = out.width >= WIDTH_WITH_KEYS
    if keys:
        table.add_column("key", no_wrap=True)
    for manifest in manifests:
        counts = [f"{manifest.count(kind):,}" for kind in KINDS]
        told = ["stale"] if (manifest.system, manifest.stage) in stale else []
        mark = ", ".join([*told, *filter(None, [manifest.attached_told])])
        created = manifest.created[:16].replace("T", " ")
        table.add_row(f"{manifest.system}_{manifest.stage}", *counts, created, mark, *([manifest.key] if keys else []))
    return table


def _described(manifest: Manifest, store: Any) -> dict[str, Any]:
    return {
        "system": manifest.system,
        "stage": manifest.stage,
        "view": f"{manifest.system}_{manifest.stage}",
        "key": manifest.key,
        "rows": manifest.count("rows"),
        "dropped": manifest.count("dropped"),
        "quarantined": manifest.count("quarantined"),
        "created": manifest.created,
        "product": manifest.product if manifest.attached else None,
        "files": {name: {"bytes": one.bytes, "sha256": one.sha256} for name, one in manifest.attached.items()},
        "path": str(store.table_directory(manifest.ref)),
    }
