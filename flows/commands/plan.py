"""normloom plan."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

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
    escaped,
    out,
)

if TYPE_CHECKING:
    from normloom.plan import Plan, PlannedStage

MINUTE, HOUR = 60, 3600
NAMED = 3  # stages that a line names
STYLES = {"reused": "dim", "taken": "dim", "resumed": "green", "waiting": "yellow"}


def plan(
    system: SystemArgument,
    profile: ProfileOption = DEFAULT_PROFILE,
    source: SourceOption = None,
    text_column: TextColumnOption = None,
    limit: LimitOption = None,
    store: StoreOption = DEFAULT_STORE,
    set_: SetOption = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Plan this stage alone, on the tables there are; repeatable.")
    ] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Plan this stage and all that stands on it.")] = None,
    force: Annotated[
        list[str] | None, typer.Option(help="Plan to make this stage again though nothing changed; repeatable.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Say what normloom build would do when given the same options; starts and writes nothing.

    Each stage is reused, resumed, changed (and in what), waiting (reused after all if what it reads comes out
    as before) or new. Rows and times are those of earlier builds: ~ marks what stands on tables still to be
    made, or on a table made with another model or other settings; ? that no earlier table tells. Times are
    those of work at rows and of loading models; starting Prefect and Ray and the checks of tables come on top.

    Examples:

        normloom plan savacu --set classify.delta=0.6

        normloom plan savacu --profile paper --source my_prompts.csv --json
    """
    from normloom.flows.settings import stages_for
    from normloom.graph import stages_of
    from normloom.plan import plan as plan_build
    from normloom.selection import Selection
    from normloom.store import Store

    given = assignments(source=source, text_column=text_column, limit=limit, settings=set_)
    where = Store(store)
    prepared = stages_for(system, profile=profile, assignments=given, store=where)
    planned = plan_build(
        stages_of(*prepared.ends),
        system=system,
        store=where,
        resources=prepared.resources,
        selection=Selection(only=tuple(only or ()), start=from_, force=tuple(force or ())),
    )
    if json_:
        print(json.dumps(_as_json(planned), ensure_ascii=False))
        return
    out.print(_table(planned))
    for line in (_summary(planned), _loads(planned)):
        out.print(line, highlight=False)


def about(seconds: float) -> str:
    """Return a duration as roughly as it is known."""
    if seconds < 1:
        return "under 1 s"
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{seconds / MINUTE:.0f} min"
    return f"{int(seconds // HOUR)} h {int(seconds % HOUR // MINUTE)} min"


def _table(planned: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for one in planned.stages:
        cells = (one.stage.name, one.state, _rows(one), _time(one), _why(one))
        table.add_row(*map(escaped, cells), style=STYLES.get(one.state))
    return table


def _rows(one: PlannedStage) -> str:
    if not one.to_do or not one.stage.inputs:
        return ""
    if one.rows is None or one.rows_left is None:
        return "?"
    part = f"{one.rows_left:,} of " if one.rows_left != one.rows else ""
    return f"{'~' if one.expected else ''}{part}{one.rows:,}"


def _time(one: PlannedStage) -> str:
    if not one.to_do:
        return ""
    if one.seconds is None:
        return "?"
    return f"{'~' if one.rough or one.expected else ''}{about(one.seconds)}"


def _why(one: PlannedStage) -> str:
    from normloom.changes import summarise

    return {
        "reused": "",
        "taken": "read as it stands",
        "again": "asked for",
        "resumed": f"{one.parts_done} of {one.parts} parts are done",
        "changed": summarise(one.changes),
        "waiting": f"unless {_named(one.waits_for)} as before",
        "new": "no table yet",
    }[one.state]


def _named(stages: tuple[str, ...]) -> str:
    if len(stages) == 1:
        return f"{stages[0]} comes out"
    more = f" and {len(stages) - NAMED} more" if len(stages) > NAMED else ""
    return f"{', '.join(stages[:NAMED])}{more} come out"


def _summary(planned: Plan) -> str:
    total, to_do = len(planned.stages), len(planned.to_do)
    if not to_do:
        return f"Nothing to do: the tables of all {total} stages are there."
    waiting = sum(one.state == "waiting" for one in planned.to_do)
    text = f"{to_do - waiting} of {total} stages to do"
    if waiting:
        text += f", {waiting} more unless what they read comes out as before"
    if not planned.untimed:
        return f"{text}; {about(planned.seconds) if planned.seconds < 1 else 'about ' + about(planned.seconds)}."
    known = f"at least {about(planned.seconds)}" if planned.seconds >= 1 else "time unknown"
    more = f" and {len(planned.untimed) - NAMED} more" if len(planned.untimed) > NAMED else ""
    return f"{text}; {known} (no earlier table tells of {', '.join(planned.untimed[:NAMED])}{more})."


def _loads(planned: Plan) -> str:
    if not planned.models:
        return "No model is loaded."
    if planned.loads is None:
        return f"Models needed: {', '.join(planned.models)}; how often each loads is for the cluster's room to say."
    times = (f"{name} {about(seconds)}" for name, seconds in planned.load_seconds.items())
    known = f" (a load: {', '.join(times)})" if planned.load_seconds else ""
    return f"Models load: {', '.join(spec.model for spec in planned.loads)}{known}."


def _as_json(planned: Plan) -> dict[str, Any]:
    return {
        "system": planned.system,
        "to_do": [one.stage.name for one in planned.to_do if one.state != "waiting"],
        "waiting": [one.stage.name for one in planned.to_do if one.state == "waiting"],
        "seconds": round(planned.seconds, 3),
        "untimed": planned.untimed,
        "models": planned.models,
        "loads": None if planned.loads is None else [spec.model for spec in planned.loads],
        "load_seconds": {name: round(seconds, 3) for name, seconds in planned.load_seconds.items()},
        "stages": [_stage(one) for one in planned.stages],
    }


def _stage(one: PlannedStage) -> dict[str, Any]:
    return {
        "name": one.stage.name,
        "state": one.state,
        "key": one.key,
        "rows": one.rows,
        "rows_left": one.rows_left,
        "expected": one.expected,
        "parts": one.parts,
        "parts_done": one.parts_done,
        "seconds": None if one.seconds is None else round(one.seconds, 3),
        "rough": one.rough,
        "model": one.stage.model.model if one.stage.model else None,
        "waits_for": list(one.waits_for),
        "changes": [{"field": change.field, "kind": change.kind} for change in one.changes],
    }
