"""normloom forget."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normloom.cli.common import DEFAULT_STORE, FAILED, JsonOption, StoreOption, err, escaped, out
from normloom.core.errors import UsageError
from normloom.core.formats.json_text import json_text
from normloom.core.formats.text_file import text_of
from normloom.core.rows.text import counted

if TYPE_CHECKING:
    from normloom.history.removal.forget import Asked
    from normloom.store.forgotten import Purging
    from normloom.store.store import Store


def forget(
    row_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ROW_ID]...", help="Ids of rows, or their first 6 digits or more.", show_default=False),
    ] = None,
    text_file: Annotated[
        Path | None,
        typer.Option(
            help="A file that holds a text, or a .jsonl file with a JSON string on each line: every source row that "
            "has one of them is forgotten.",
            show_default=False,
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; recorded with the rows.", show_default=False)] = "",
    store: StoreOption = DEFAULT_STORE,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what is derived from the rows.")] = False,
    purge: Annotated[
        bool,
        typer.Option("--purge", help="Remove the tables and model files that hold forgotten rows, and scan the store."),
    ] = False,
    also_newest: Annotated[
        bool, typer.Option("--also-newest", help="With --purge: also remove tables that no build has replaced.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Take rows back: no build uses them again, and whatever was derived from them is rebuilt without them.

    Shows everything derived from the rows in every table of the store, asks for confirmation, and adds them to the
    store's deny list (hashes, not texts). The next build drops them when sources are read, with the reason, and reuses
    every part that never read them. Then --purge, without rows, removes old tables and models that hold forgotten rows
    and scans all remaining files; it exits with 1 if it finds any. Copies out of reach are listed. docs/forget.md.

    Examples:

        normloom forget 7d01e6aa --reason "withdrawn by its author"

        normloom forget --text-file message.txt --reason "take-down 2026-114" --yes

        normloom build savacu && normloom forget --purge

    With --json one object: rows (system, stage, row_id), texts (hashes), reached (number of rows), tables (table, rows,
    dropped, quarantined, learned, through, newest, published), beyond, forgotten (the id of the entry, null if nothing
    was added); with --purge instead removed, files, bytes and found.
    """
    from normloom.history.removal.forget import ask
    from normloom.history.removal.forget import forget as forget_rows
    from normloom.store.store import Store

    where = Store(store)
    done: dict[str, Any] = {}
    texts = _texts(text_file)
    if row_ids or text_file or not purge:
        asked = ask(where, row_ids or (), texts)
        if not json_:
            _show(asked)
        agreed = not dry_run and (yes or (sys.stdin.isatty() and not json_ and typer.confirm("Forget these rows?")))
        added = forget_rows(where, asked, reason=reason) if agreed else None
        done = {**asked.as_json(), "forgotten": added.forgetting if added else None}
        if not json_:
            _say_next(asked, where, forgotten=added is not None, dry_run=dry_run)
        purge = purge and added is not None
    elif dry_run:
        raise UsageError("--dry-run shows what is derived from rows: give their ids, or --text-file")
    elif not yes and not (sys.stdin.isatty() and not json_ and typer.confirm("Remove all that holds forgotten rows?")):
        raise UsageError("nothing was removed: give --yes to purge without being asked")
    failed = False
    if purge:
        failed = _purge(where, texts, also_newest=also_newest, done=done, quiet=json_)
    if json_:
        print(json_text(done))
    if failed:
        raise typer.Exit(FAILED)


def _purge(store: Store, texts: list[str], *, also_newest: bool, done: dict[str, Any], quiet: bool) -> bool:
    """Purge, show the result, add it to the JSON output, and return whether the scan found anything."""
    from normloom.history.removal.purge import purge

    purged = purge(store, also_newest=also_newest, texts=texts)
    done |= purged.model_dump()
    if not quiet:
        _show_purged(purged)
    return bool(purged.found)


def _texts(file: Path | None) -> list[str]:
    """Return the texts in a file."""
    if file is None:
        return []
    content = text_of(file)
    if file.suffix != ".jsonl":
        return [content.strip()]
    texts = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            text = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{file}, line {number}: expected a JSON string ({error})") from error
        if not isinstance(text, str):
            raise UsageError(f"{file}, line {number}: expected a JSON string, got {type(text).__name__}")
        texts.append(text)
    return texts


def _show(asked: Asked) -> None:
    from rich.table import Table

    for row in asked.reach.sources:
        out.print(f"{row.system}/{row.stage} {row.row_id}", highlight=False)
    if not asked.reach.sources:
        out.print("No row of a source has this text; builds will drop it if a source brings it.")
        return
    table = Table("table", "rows", "dropped", "quarantined", "trained on", "", box=None)
    for held in asked.reach.held:
        notes = ["" if held.newest else "older" if held.table.manifest else "unfinished"]
        notes += [f"through {held.through}"] if held.through else []
        counts = (f"{count:,}" if count else "" for count in (held.rows, held.dropped, held.quarantined, held.learned))
        table.add_row(escaped(held.table), *counts, ", ".join(filter(None, notes)))
    out.print(table, highlight=False)
    models = sum(bool(held.learned) for held in asked.reach.held)
    systems = dict.fromkeys(held.table.system for held in asked.reach.held)
    sources = len(asked.reach.sources)
    out.print(
        f"{counted(sources, 'source row')} and {counted(len(asked.reach.ids) - sources)} made of them, in "
        f"{counted(len(asked.reach.held), 'table')} of {', '.join(systems)}; "
        f"{counted(models, 'model')} trained on them.",
        highlight=False,
    )
    out.print("Out of the store's reach:", highlight=False)
    for copy in asked.beyond:
        out.print(f"  {escaped(copy)}", highlight=False, soft_wrap=True)


def _say_next(asked: Asked, store: Store, *, forgotten: bool, dry_run: bool) -> None:
    from normloom.history.resume import rebuild_commands

    if forgotten:
        systems = dict.fromkeys(held.table.system for held in asked.reach.newest())
        builds = " && ".join(rebuild_commands(systems, store))
        first = f"{builds}, with the settings of the last build, makes new tables without them; then " if builds else ""
        out.print(f"Forgotten. {first}normloom forget --purge removes the old ones.", highlight=False, soft_wrap=True)
    elif not dry_run:
        err.print("Nothing was forgotten: give --yes to do it without being asked.")


def _show_purged(purged: Purging) -> None:
    out.print(f"Removed {len(purged.removed):,} tables and files.", highlight=False)
    for found in purged.found:
        err.print(f"[red]found[/] {escaped(found)}", highlight=False, soft_wrap=True)
    size = f"{counted(purged.files, 'file')} ({purged.bytes / 1e6:,.1f} MB)"
    if purged.found:
        err.print(f"{len(purged.found):,} of {size} that are left hold forgotten rows or texts.", highlight=False)
    else:
        out.print(f"Scanned all {size} that are left: no forgotten row or text found.", highlight=False)
