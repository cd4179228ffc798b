"""normloom prune."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.filesize import decimal

from normloom.cli.common import DEFAULT_STORE, JsonOption, StoreOption, err, out
from normloom.core.formats.json_text import json_text
from normloom.core.rows.text import counted


def prune(
    store: StoreOption = DEFAULT_STORE,
    days: Annotated[
        int, typer.Option(min=1, help="Remove records of builds started more than this many days ago.")
    ] = 90,
    keep: Annotated[int, typer.Option(min=1, help="Keep the last K finished builds of each system.")] = 10,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    json_: JsonOption = False,
) -> None:
    """Remove records of old builds: locks, OpenLineage events and resume data of failed builds.

    Tables are kept (normloom gc removes those), and so are the builds behind the newest release. Prefect removes its
    own runs, logs and pages after 90 days (docs/operating.md).

    Examples:

        normloom prune --days 30 --dry-run
    """
    from normloom.history.removal.retention import expired, remove
    from normloom.store.store import Store

    found = expired(Store(store), before=datetime.now(UTC) - timedelta(days=days), keep=keep)
    size = decimal(sum(one.bytes for one in found))
    if not json_:
        for system, count in Counter(one.system for one in found).items():
            out.print(f"{system}: records of {counted(count, 'build')}", highlight=False)
        out.print(
            f"In all {counted(len(found), 'build')}, {size}." if found else "There is nothing to remove.",
            highlight=False,
        )
    going = not dry_run and bool(found) and (yes or (sys.stdin.isatty() and not json_))
    going = going and (yes or typer.confirm("Remove all of this?"))
    if going:
        remove(found)
    if json_:
        builds = [{"system": one.system, "build": one.build, "bytes": one.bytes} for one in found]
        print(json_text({"builds": builds, "removed": going}))
    elif going:
        out.print(f"Removed the records of {counted(len(found), 'build')}, {size}.", highlight=False)
    elif found and not dry_run:
        err.print("Nothing was removed: give --yes to remove without being asked.")
