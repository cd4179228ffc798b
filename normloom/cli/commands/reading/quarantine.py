"""normloom quarantine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from normloom.cli.common import DEFAULT_PROFILE, JsonOption, err, escaped, out
from normloom.cli.options import SystemOptions, taking
from normloom.core.errors import UsageError
from normloom.core.formats.json_text import json_text

if TYPE_CHECKING:
    from normloom.store.store import Store
    from normloom.store.unpublished import Quarantine

SHOWN = 40
PAYLOAD_CHARS = 120


@taking(SystemOptions)
def quarantine(
    given: SystemOptions,
    stage: Annotated[str | None, typer.Argument(help="Only the rows of this stage.", show_default=False)] = None,
    replay: Annotated[bool, typer.Option("--replay", help="Retry the rows and rebuild everything downstream.")] = False,
    json_: JsonOption = False,
) -> None:
    """Show quarantined rows with rule and reason, and retry them.

    Rows of rejected or unfinished tables are shown too, marked unpublished. --replay rebuilds only the parts with
    quarantined rows, then everything downstream. Pass the options of the original build: other settings make a
    different table, with nothing to replay.

    Examples:

        normloom quarantine savacu

        normloom quarantine savacu generate_0_smollm2 --replay
    """
    from normloom.settings.systems import name_of
    from normloom.store.store import Store

    where, system = Store(given.store), name_of(given.system)
    found = _quarantined(where, system, stage)
    if not replay:
        if given.assignments or given.profile != DEFAULT_PROFILE:
            raise UsageError("--profile, --source, --text-column, --limit and --set need --replay: add it")
        _show(found, as_json=json_)
        if not json_:
            _explain(where, system, found)
        return
    if not found:
        raise UsageError(
            f"no row of {system}{f', stage {stage},' if stage else ''} is in quarantine: nothing to replay"
        )
    from normloom.cli.interrupt import leaving_quietly
    from normloom.cli.run import run_build
    from normloom.steps.selection import Selection

    before = {quarantine.stage: quarantine.count for quarantine in found}  # of two tables of a stage the younger one's
    with leaving_quietly(err):
        report = run_build(
            given.system,
            profile=given.profile,
            assignments=given.assignments,
            root=given.store,
            quiet=json_,
            selection=Selection(replay=tuple(before)),
        )
    counts = {entry["name"]: entry["quarantined"] for entry in report["stages"]}
    replayed = {name: {"before": count, "after": counts[name]} for name, count in before.items()}
    if json_:
        print(json_text({**report, "replayed": replayed}))
        return
    for name, count in replayed.items():
        out.print(
            f"{name}: {count['before'] - count['after']} of {count['before']} rows were recovered", highlight=False
        )


def _quarantined(store: Store, system: str, stage: str | None) -> list[Quarantine]:
    """Return the quarantined rows of the newest tables, unpublished ones last."""
    from normloom.store.unpublished import quarantines

    store.require(system)
    found = quarantines(store, system)
    if not found:
        raise UsageError(f"{store.root} has no tables of {system} yet: run normloom build {system} first")
    stages = list(dict.fromkeys(table.stage for table in found))
    if stage and stage not in stages:
        raise UsageError(f"stage {stage!r} has no table; available: {', '.join(stages)}")
    return [table for table in found if table.count and stage in {None, table.stage}]


def _explain(store: Store, system: str, found: list[Quarantine]) -> None:
    """Explain unpublished tables, and why the newest build did not finish."""
    from normloom.history.unfinished import unfinished

    if all(table.published for table in found):
        return
    stages = ", ".join(table.stage for table in found if not table.published)
    err.print(f"unpublished, refused or not finished: the newest table of {stages}", highlight=False, soft_wrap=True)
    if (builds := unfinished(store, system)) and (error := builds[-1].error):
        err.print(f"build {builds[-1].build} failed: {escaped(error)}", highlight=False, soft_wrap=True)


def _show(found: list[Quarantine], *, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {"stage": table.stage, "published": table.published, **row}
        for table in found
        for row in table.rows().iter_rows(named=True)
    ]
    if as_json:
        print(json_text([{**row, "payload": json.loads(row["payload"])} for row in rows]))
        return
    if not rows:
        out.print("No row is in quarantine.")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("stage", "row_id", "rule", "reason", "payload"):
        table.add_column(name, overflow="fold")
    for row in rows[:SHOWN]:
        stage = escaped(row["stage"]) + ("" if row["published"] else " (unpublished)")
        payload = row["payload"] if len(row["payload"]) <= PAYLOAD_CHARS else f"{row['payload'][:PAYLOAD_CHARS]}…"
        table.add_row(stage, *(escaped(row[name]) for name in ("row_id", "rule", "reason")), escaped(payload))
    out.print(table)
    if len(rows) > SHOWN:
        err.print(f"[dim]first {SHOWN} of {len(rows)} rows; --json gives all")
