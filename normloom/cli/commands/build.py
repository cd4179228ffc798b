"""normloom build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from normloom.cli.common import (
    DEFAULT_PROFILE,
    DEFAULT_STORE,
    JsonOption,
    LimitOption,
    MaxCostOption,
    MaxRequestsOption,
    ProfileOption,
    SetOption,
    SourceOption,
    StoreOption,
    SystemArgument,
    TextColumnOption,
    assignments,
    err,
)
from normloom.core.errors import UsageError


def build(
    system: SystemArgument,
    profile: ProfileOption = DEFAULT_PROFILE,
    source: SourceOption = None,
    text_column: TextColumnOption = None,
    limit: LimitOption = None,
    max_requests: MaxRequestsOption = None,
    max_cost: MaxCostOption = None,
    store: StoreOption = DEFAULT_STORE,
    set_: SetOption = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Build only this stage, from existing tables; repeatable.", show_default=False),
    ] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Build this stage and everything downstream.")] = None,
    force: Annotated[
        list[str] | None,
        typer.Option(help="Rebuild this stage even if nothing changed; repeatable.", show_default=False),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Rebuild every stage even if nothing changed.")] = False,
    json_: JsonOption = False,
) -> None:
    """Bring a system's tables up to date and print what was made.

    Stages whose inputs, settings, templates, models and code are unchanged are reused. Rerun the command to resume a
    build that was interrupted or failed: finished parts are kept, and rows lost to an outage are asked for again.

    After --only or --from, downstream tables are shown as stale until they are rebuilt. --force and --fresh give
    a stage a new table, which later builds use; if its rows are unchanged, downstream tables are kept.

    Examples:

        normloom build savacu

        normloom build savacu --source my_prompts.csv --text-column prompt --limit 200

        normloom build savacu --only judge_0
    """
    from normloom.cli.doctor import examine_store
    from normloom.cli.interrupt import leaving_quietly
    from normloom.cli.run import run_build
    from normloom.steps.selection import Selection

    if (place := examine_store(store)).state == "broken":
        raise UsageError(f"{place.detail}: {place.remedy}")
    given = assignments(
        source=source,
        text_column=text_column,
        limit=limit,
        settings=set_,
        max_requests=max_requests,
        max_cost=max_cost,
    )
    with leaving_quietly(err):
        report = run_build(
            system,
            profile=profile,
            assignments=given,
            root=store,
            quiet=json_,
            selection=Selection(
                only=tuple(only or ()),
                start=from_,
                force=tuple(force or ()),
                fresh=_since(system, store) if fresh else None,
            ),
        )
    if json_:
        print(json.dumps(report))


def _since(system: str, store: Path) -> str:
    from normloom.history.fresh import fresh_since
    from normloom.settings.systems import name_of
    from normloom.store.store import Store

    return fresh_since(Store(store), name_of(system))
