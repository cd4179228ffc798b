"""normloom plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from normloom.cli.common import JsonOption, escaped, out
from normloom.cli.options import BuildOptions, taking
from normloom.core.errors import UsageError
from normloom.core.formats.json_text import json_text
from normloom.core.outlook import about

if TYPE_CHECKING:
    from collections.abc import Mapping

    from normloom.core.bounds import Bound
    from normloom.planning.costs.spending import Bill, SpendingLimits
    from normloom.planning.plan import Plan, PlannedStage

NAMED = 3  # stages that a line names
STYLES = {"reused": "dim", "taken": "dim", "resumed": "green", "waiting": "yellow"}


@taking(BuildOptions)
def plan(given: BuildOptions, json_: JsonOption = False) -> None:
    """Show what normloom build would do with the same options; starts and writes nothing.

    Each stage is reused, resumed, changed (with the fields that differ), waiting (reused after all if its inputs turn
    out unchanged) or new. Rows and times are estimated from earlier builds: ~ marks rough estimates, ? unknown ones,
    and <= an upper bound from the settings and the source. Requests, tokens and cost are upper bounds. Times cover
    processing rows and loading models, not starting Prefect and Ray or checking tables.

    Examples:

        normloom plan savacu --set classify.delta=0.6

        normloom plan savacu --profile paper --source my_prompts.csv --json
    """
    from normloom.cli.output.bill import bill_as_json, bill_lines
    from normloom.history.removal.gc import old_tables
    from normloom.planning.costs.ceiling import bills, bounds, unbounded
    from normloom.planning.plan import plan as plan_build
    from normloom.planning.plan import read_sources
    from normloom.settings.settings import stages_for
    from normloom.steps.graph import stages_of
    from normloom.store.store import Store

    where, selection = Store(given.store), given.selection
    prepared = stages_for(given.system, profile=given.profile, assignments=given.assignments, store=where)
    stages = stages_of(*prepared.ends)
    planned = plan_build(
        stages, system=prepared.system.name, store=where, resources=prepared.resources, selection=selection
    )
    sources = read_sources(stages, system=prepared.system.name, store=where, selection=selection)
    most = bounds(planned.stages, sources=sources, store=where)
    bill = bills(planned.stages, most)
    notes = [
        *prepared.config.notes,
        *filter(None, [old_tables(where, prepared.system.name), unbounded(planned.stages, most)]),
        *_refusal(prepared.config.spending.limits, bill),
    ]
    if json_:
        print(json_text({**_as_json(planned, most), **bill_as_json(bill), "notes": notes}))
        return
    out.print(_table(planned, most))
    for line in (_summary(planned), _loads(planned), *bill_lines(bill), *notes):
        out.print(escaped(line), highlight=False)


def _refusal(limits: SpendingLimits, bill: list[Bill]) -> list[str]:
    """Return why a build would not start, if its limits are too low."""
    try:
        limits.hold(bill)
    except UsageError as error:
        return [f"normloom build would not start: {error}"]
    return []


def _table(planned: Plan, most: Mapping[str, Bound]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for one in planned.stages:
        cells = (one.stage.name, one.state, _rows(one, most.get(one.stage.name)), _time(one), _why(one))
        table.add_row(*map(escaped, cells), style=STYLES.get(one.state))
    return table


def _rows(one: PlannedStage, most: Bound | None) -> str:
    if not one.to_do or not one.stage.inputs:
        return ""
    if one.rows is None or one.rows_left is None:
        return f"<= {most.size.rows:,} out" if most and most.known else "?"
    part = f"{one.rows_left:,} of " if one.rows_left != one.rows else ""
    return f"{'~' if one.expected else ''}{part}{one.rows:,}"


def _time(one: PlannedStage) -> str:
    if not one.to_do:
        return ""
    if one.seconds is None:
        return "?"
    return f"{'~' if one.rough or one.expected else ''}{about(one.seconds)}"


def _why(one: PlannedStage) -> str:
    from normloom.planning.changes import summarise

    why = {
        "reused": "",
        "taken": "read as published",
        "again": "asked for",
        "resumed": f"{one.parts_done} of {one.parts} parts are done",
        "changed": summarise(one.changes),
        "waiting": f"unless {_named(one.waits_for)} unchanged",
        "new": "no table yet",
    }[one.state]
    if one.parts_done and one.state in {"changed", "waiting", "new"}:
        why = f"{why}; {'about ' * one.expected}{one.parts_done:,} of {one.parts:,} parts can be reused"
    products = one.waits_for_products
    return f"{why}; waits for the product of {' and '.join(products)}" if products else why


def _named(stages: tuple[str, ...]) -> str:
    if len(stages) == 1:
        return f"{stages[0]} is"
    more = f" and {len(stages) - NAMED} more" if len(stages) > NAMED else ""
    return f"{', '.join(stages[:NAMED])}{more} are"


def _summary(planned: Plan) -> str:
    total, to_do = len(planned.stages), len(planned.to_do)
    if not to_do:
        return f"Nothing to do: the tables of all {total} stages are up to date."
    waiting = sum(one.state == "waiting" for one in planned.to_do)
    text = f"{to_do - waiting} of {total} stages to do"
    if waiting:
        text += f", {waiting} more unless what they read is unchanged"
    if not planned.untimed:
        return f"{text}; {about(planned.seconds) if planned.seconds < 1 else 'about ' + about(planned.seconds)}."
    known = f"at least {about(planned.seconds)}" if planned.seconds >= 1 else "time unknown"
    more = f" and {len(planned.untimed) - NAMED} more" if len(planned.untimed) > NAMED else ""
    return f"{text}; {known} (no earlier table of {', '.join(planned.untimed[:NAMED])}{more})."


def _loads(planned: Plan) -> str:
    if not planned.models:
        return "No model is loaded."
    if planned.loads is None:
        return f"Models needed: {', '.join(planned.models)}; how often each loads depends on the room in the cluster."
    times = (f"{name} {about(seconds)}" for name, seconds in planned.load_seconds.items())
    known = f" (a load: {', '.join(times)})" if planned.load_seconds else ""
    return f"Models load: {', '.join(spec.title for spec in planned.loads)}{known}."


def _as_json(planned: Plan, most: Mapping[str, Bound]) -> dict[str, Any]:
    return {
        "system": planned.system,
        "to_do": [one.stage.name for one in planned.to_do if one.state != "waiting"],
        "waiting": [one.stage.name for one in planned.to_do if one.state == "waiting"],
        "seconds": round(planned.seconds, 3),
        "untimed": planned.untimed,
        "models": planned.models,
        "loads": None if planned.loads is None else [spec.title for spec in planned.loads],
        "load_seconds": {name: round(seconds, 3) for name, seconds in planned.load_seconds.items()},
        "stages": [_stage(one, most.get(one.stage.name)) for one in planned.stages],
    }


def _stage(one: PlannedStage, most: Bound | None) -> dict[str, Any]:
    return {
        "name": one.stage.name,
        "state": one.state,
        "key": one.key,
        "rows": one.rows,
        "at_most": None
        if most is None or not most.known
        else {
            "rows_out": most.size.rows,
            "requests": most.requests,
            "tokens_in": most.tokens_in,
            "tokens_out": most.tokens_out,
        },
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
