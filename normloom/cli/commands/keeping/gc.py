"""normloom gc."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from normloom.cli.common import DEFAULT_STORE, FAILED, JsonOption, StoreOption, err, out, stored_as
from normloom.core.formats.json_text import json_text

if TYPE_CHECKING:
    from normloom.history.removal.gc import Collection, Garbage, What

One = TypeVar("One")
Result = TypeVar("Result")
SAID: dict[What, str] = {"table": "old tables", "partial": "unfinished", "leftover": "stray files"}


def gc(
    system: Annotated[str | None, typer.Argument(help="Only the tables of this system.", show_default=False)] = None,
    store: StoreOption = DEFAULT_STORE,
    keep: Annotated[int, typer.Option(min=1, help="Keep the tables of the last K builds of each system.")] = 10,
    partial_days: Annotated[
        int, typer.Option(min=0, help="Keep unfinished tables until they are this many days old.")
    ] = 7,
    old_keys: Annotated[
        bool,
        typer.Option("--old-keys", help="Also remove tables made by an earlier version that no build will reuse."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    json_: JsonOption = False,
) -> None:
    """Remove tables that no recent build uses, after listing them.

    The newest table of each stage is kept, and so are the tables of recent builds and all build locks. A build that
    needs a removed table rebuilds it. Systems that are being built are skipped.

    Examples:

        normloom gc --dry-run

        normloom gc savacu --keep 3 --yes
    """
    from normloom.history.removal.gc import collect, idle, remove
    from normloom.store.store import Store

    where, system = Store(store), stored_as(system)
    going = not dry_run and (yes or (sys.stdin.isatty() and not json_))

    def look(name: str) -> Collection:
        collection = collect(where, name, keep=keep, partial=timedelta(days=partial_days), old_keys=old_keys)
        if going:
            with idle(where, name):  # better to hear of a running build now than after the question
                return collection
        return collection

    found, refused = _each(look, [system] if system else where.systems())
    waiting = any(each.garbage for each in found)
    if not json_:
        _show(found)
    removed: list[Garbage] = []
    if waiting and going and (yes or typer.confirm("Remove all of this?")):
        gone, also_refused = _each(lambda each: remove(where, each), found)
        removed, refused = [item for items in gone for item in items], refused + also_refused
        if not json_:
            out.print(f"Removed {_counted(removed)}.", highlight=False)
    if json_:
        print(json_text(_as_json(found, removed)))
    elif waiting and not going and not dry_run:
        err.print("Nothing was removed: give --yes to remove without being asked.")
    _tell(refused)


def _each(action: Callable[[One], Result], ones: Iterable[One]) -> tuple[list[Result], list[str]]:
    """Return an action's result for each system, and the reason for those that refused it."""
    from normloom.core.errors import StoreError

    results: list[Result] = []
    refused: list[str] = []
    for one in ones:
        try:
            results.append(action(one))
        except StoreError as error:
            refused.append(str(error))
    return results, refused


def _tell(refused: Sequence[str]) -> None:
    """Print why systems were skipped, and fail if there are any."""
    for message in refused:
        err.print(f"[red]normloom:[/] {escape(message)}", highlight=False, soft_wrap=True)
    if refused:
        raise typer.Exit(FAILED)


def _show(found: Sequence[Collection]) -> None:
    everything = [item for each in found for item in each.garbage]
    if not everything:
        out.print("There is nothing to remove.")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("what", no_wrap=True)
    for heading in ("count", "parts", "size", "last touched"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in found:
        groups: dict[tuple[str, What], list[Garbage]] = {}
        for item in each.garbage:
            groups.setdefault((item.stage, item.what), []).append(item)
        for (stage, what), items in groups.items():
            table.add_row(
                f"{each.system}_{stage}",
                SAID[what],
                f"{len(items):,}",
                f"{sum(item.parts for item in items):,}",
                decimal(sum(item.bytes for item in items)),
                _ages([item.touched for item in items]),
            )
    out.print(table)
    out.print(f"In all {_counted(everything)}.", highlight=False)


def _counted(items: Sequence[Garbage]) -> str:
    counts = Counter(item.what for item in items)
    told = [f"{counts[what]:,} {said}" for what, said in SAID.items() if counts[what]]
    return f"{', '.join(told) or 'nothing'}, {decimal(sum(item.bytes for item in items))}"


def _ages(touched: Sequence[float]) -> str:
    days = sorted({int((time.time() - moment) // timedelta(days=1).total_seconds()) for moment in touched})
    return " to ".join(
        "today" if day <= 0 else f"{day} d ago" for day in (days if len(days) == 1 else (days[0], days[-1]))
    )


def _as_json(found: Iterable[Collection], removed: Sequence[Garbage]) -> dict[str, Any]:
    gone = {item.path for item in removed}
    return {
        "systems": {
            each.system: [
                {
                    "what": item.what,
                    "stage": item.stage,
                    "path": str(item.path),
                    "parts": item.parts,
                    "bytes": item.bytes,
                    "touched": item.touched,
                    "removed": item.path in gone,
                }
                for item in each.garbage
            ]
            for each in found
        },
        "bytes": sum(item.bytes for each in found for item in each.garbage),
        "bytes_removed": sum(item.bytes for item in removed),
    }
