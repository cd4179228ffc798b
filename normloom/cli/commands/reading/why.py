"""normloom why."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normloom.cli.common import JsonOption, escaped, out
from normloom.cli.options import SystemOptions, taking
from normloom.core.formats.json_text import json_text

if TYPE_CHECKING:
    from normloom.core.table import Manifest
    from normloom.planning.causes import Cause
    from normloom.planning.changes import Change
    from normloom.planning.plan import PlannedStage
    from normloom.store.store import Store


@taking(SystemOptions)
def why(
    given: SystemOptions,
    stage: Annotated[str, typer.Argument(help="The stage, such as classify.", show_default=False)],
    json_: JsonOption = False,
) -> None:
    """Explain why normloom build would rebuild a stage with the same options; starts nothing.

    Lists every field of the stage's key that differs from its newest table, and the upstream stage responsible if an
    input changed. For a table that would be reused it compares the newest table with the one before.

    Examples:

        normloom why savacu judge_0

        normloom why savacu publish --set classify.delta=0.6
    """
    from normloom.planning.plan import plan
    from normloom.settings.settings import stages_for
    from normloom.steps.graph import stages_of
    from normloom.steps.selection import Selection
    from normloom.store.store import Store

    where = Store(given.store)
    prepared = stages_for(given.system, profile=given.profile, assignments=given.assignments, store=where)
    stages = stages_of(*prepared.ends)
    Selection(only=(stage,)).chosen(stages)  # refuses a name that is no stage
    planned = plan(stages, system=prepared.system.name, store=where, resources=prepared.resources)[stage]
    old, changed, causes = _compared(planned, where)
    if json_:
        print(json_text(_as_json(planned, old, changed, causes)))
        return
    for line in [*_heading(planned, old), *_lines(changed, causes)]:
        out.print(escaped(line), highlight=False, soft_wrap=True)


def _compared(planned: PlannedStage, store: Store) -> tuple[Manifest | None, list[Change], list[Cause]]:
    """Return the table that is compared with, what differs from it and the stages upstream that are the cause."""
    from normloom.planning.causes import causes, changes, stored
    from normloom.planning.costs.estimate import history

    old, new = planned.newest, planned.version
    if planned.table and not planned.to_do:
        tables = history(store, planned.table.system, planned.table.stage)
        before = [table for table in tables if table.created < planned.table.created]
        old, new = before[-1] if before else None, stored(planned.table, store)
    if old is None:
        return None, [], []
    return old, changes(stored(old, store), new), causes(stored(old, store), new)


def _heading(planned: PlannedStage, old: Manifest | None) -> list[str]:
    name = planned.stage.name
    if planned.table and not planned.to_do:
        lines = [f"{name}: unchanged, {_table(planned.table)} would be reused"]
        since = f"it differs from the one before it, {_table(old)}, in" if old else "it is this stage's first table"
        return [*lines, since]
    if old is None:
        return [f"{name}: it has no table in the store yet, so it would be made"]
    verdict = {
        "waiting": "it would be rebuilt unless what it reads is unchanged",
        "resumed": f"{planned.parts_done} of {planned.parts} parts are done, the others would be made",
    }.get(planned.state, "it would be rebuilt")
    return [f"{name}: {verdict}; against {_table(old)}"]


def _lines(changed: list[Change], causes: list[Cause]) -> list[str]:
    from normloom.planning.changes import describe

    lines = [f"  {line}" for line in describe(changed)]
    for cause in causes:
        path = " <- ".join(cause.path)
        if cause.changes is None:
            lines.append(f"  through {path}: the table of {cause.stage} that was read is no longer in the store")
        else:
            lines.append(f"  through {path}:")
            lines += [f"    {line}" for line in describe(cause.changes)]
    return lines


def _table(manifest: Manifest) -> str:
    return f"table {manifest.key} of build {manifest.build}"


def _as_json(planned: PlannedStage, old: Manifest | None, changed: list[Change], causes: list[Cause]) -> dict[str, Any]:
    new = planned.table if planned.table and not planned.to_do else None
    return {
        "stage": planned.stage.name,
        "state": planned.state,
        "key": planned.key,
        "old": _named(old),
        "new": _named(new),
        "changes": [asdict(change) for change in changed],
        "causes": [asdict(cause) for cause in causes],
    }


def _named(manifest: Manifest | None) -> dict[str, str] | None:
    if manifest is None:
        return None
    return {"key": manifest.key, "build": manifest.build, "created": manifest.created}
