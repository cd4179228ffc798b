"""normloom quarantine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from normloom.errors import UsageError
from normloom.flows.commands.common import (
    DEFAULT_PROFILE,
    DEFAULT_STORE,
    JsonOption,
    LimitOption,
    ProfileOption,
    SetOption,
    SourceOption,
    StoreOption,
    SystemArgument,
    TextColumnOption,
    assignments,
    err,
    escaped,
    out,
)

if TYPE_CHECKING:
    from normloom.store import Store
    from normloom.table import Manifest

SHOWN = 40
PAYLOAD_CHARS = 120


def quarantine(
    system: SystemArgument,
    stage: Annotated[str | None, typer.Argument(help="Only the rows of this stage.", show_default=False)] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Try the rows again and rebuild what stands on the stage.")
    ] = False,
    profile: ProfileOption = DEFAULT_PROFILE,
    source: SourceOption = None,
    text_column: TextColumnOption = None,
    limit: LimitOption = None,
    store: StoreOption = DEFAULT_STORE,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Show the rows that checks or errors put aside, with rule and reason, and try them again.

    --replay makes the parts that hold such rows again and keeps all others, then builds what follows. Give it the
    options of the build: with other settings a stage has another table, and there is nothing to replay.

    Examples:

        normloom quarantine savacu

        normloom quarantine savacu generate_0_smollm2 --replay
    """
    from normloom.store import Store

    where = Store(store)
    found = _quarantined(where, system, stage)
    given = assignments(source=source, text_column=text_column, limit=limit, settings=set_)
    if not replay:
        if given or profile != DEFAULT_PROFILE:
            raise UsageError("--profile, --source, --text-column, --limit and --set go with --replay: add it")
        _show(where, found, as_json=json_)
        return
    if not found:
        raise UsageError(
            f"no row of {system}{f', stage {stage},' if stage else ''} is in quarantine: nothing to replay"
        )
    from normloom.flows.run import run_build
    from normloom.selection import Selection

    report = run_build(
        system,
        profile=profile,
        assignments=given,
        root=store,
        quiet=json_,
        selection=Selection(replay=tuple(manifest.stage for manifest in found)),
    )
    counts = {entry["name"]: entry["quarantined"] for entry in report["stages"]}
    replayed = {
        manifest.stage: {"before": manifest.count("quarantined"), "after": counts[manifest.stage]} for manifest in found
    }
    if json_:
        print(json.dumps({**report, "replayed": replayed}))
        return
    for name, count in replayed.items():
        out.print(f"{name}: {count['before'] - count['after']} of {count['before']} rows came back", highlight=False)


def _quarantined(store: Store, system: str, stage: str | None) -> list[Manifest]:
    """Return the newest tables that put rows aside."""
    newest = store.newest(system)
    if not newest:
        raise UsageError(f"there are no tables of {system} in {store.root}: run normloom build {system} first")
    if stage and stage not in {manifest.stage for manifest in newest}:
        raise UsageError(
            f"there is no table of stage {stage!r}; there is {', '.join(manifest.stage for manifest in newest)}"
        )
    asked = newest if stage is None else [manifest for manifest in newest if manifest.stage == stage]
    return [manifest for manifest in asked if manifest.count("quarantined")]


def _show(store: Store, found: list[Manifest], *, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {"stage": manifest.stage, **row}
        for manifest in found
        for row in store.scan(manifest.ref, "quarantined").collect().iter_rows(named=True)
    ]
    if as_json:
        print(json.dumps([{**row, "payload": json.loads(row["payload"])} for row in rows], ensure_ascii=False))
        return
    if not rows:
        out.print("No row is in quarantine.")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("stage", "row_id", "rule", "reason", "payload"):
        table.add_column(name, overflow="fold")
    for row in rows[:SHOWN]:
        payload = row["payload"] if len(row["payload"]) <= PAYLOAD_CHARS else f"{row['payload'][:PAYLOAD_CHARS]}…"
        table.add_row(*(escaped(row[name]) for name in ("stage", "row_id", "rule", "reason")), escaped(payload))
    out.print(table)
    if len(rows) > SHOWN:
        err.print(f"[dim]first {SHOWN} of {len(rows)} rows; --json gives all")
