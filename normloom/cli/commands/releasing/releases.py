"""normloom releases."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from normloom.cli.common import DEFAULT_STORE, FAILED, JsonOption, StoreOption, escaped, out, stored_as
from normloom.core.errors import UsageError
from normloom.core.formats.json_text import json_text

if TYPE_CHECKING:
    from normloom.history.freshness import Release
    from normloom.history.releases import ReleaseRecord
    from normloom.store.store import Store


def releases(
    system: Annotated[
        str | None, typer.Argument(help="List the versions of this system.", show_default="the newest of each")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 if a release is stale, for scripts and monitors.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """List the newest release of each system: rows, last confirmation by a build, and whether it is stale.

    With SYSTEM, its versions: date, rows, content hash, licence of the source, build. Changed columns raise the first
    number of a version, changed rows the second, changed terms the third. normloom diff and export take versions.

    A release is stale if no build has confirmed it for release.fresh_hours (a setting; default: never stale).

    Examples:

        normloom releases --check

        normloom releases savacu

        normloom diff 1.0.0 1.1.0 --system savacu
    """
    from normloom.history.freshness import releases as newest
    from normloom.store.store import Store

    where, now, system = Store(store), datetime.now(UTC), stored_as(system)
    if system is not None:
        if check:
            raise UsageError("--check covers all systems: leave out SYSTEM")
        _show_versions(where, system, json_=json_)
        return
    found = newest(where)
    if json_:
        print(json_text([_described(release, now) for release in found]))
    elif not found:
        raise UsageError(f"{where.root} has no releases yet: run normloom build first")
    else:
        table = Table(box=None, pad_edge=False)
        for heading in ("system", "rows", "confirmed", "by build", "state"):
            table.add_column(heading, justify="right" if heading == "rows" else "left", no_wrap=heading != "state")
        for release in found:
            confirmed = f"{release.confirmed:%Y-%m-%d %H:%M} UTC"
            table.add_row(release.system, f"{release.rows:,}", confirmed, release.build, _state(release, now))
        out.print(table)
    if check and any(release.stale(now) for release in found):
        raise typer.Exit(FAILED)


def _show_versions(store: Store, system: str, *, json_: bool) -> None:
    from normloom.history.releases import versions

    store.require(system)
    known = versions(store, system)
    if json_:
        print(json_text([record.model_dump(mode="json") for record in known]))
        return
    if not known:
        raise UsageError(f"{system} has no recorded versions in {store.root}: run normloom build {system} first")
    table = Table(box=None, pad_edge=False)
    for heading in ("version", "date", "rows", "content", "licence", "build"):
        table.add_column(heading, justify="right" if heading == "rows" else "left", no_wrap=heading != "build")
    for record in reversed(known):
        licence = _licence(store, record)
        cells = (record.version, f"{record.created:%Y-%m-%d %H:%M}", f"{record.rows:,}", record.content)
        table.add_row(*cells, escaped(licence), escaped(record.build))
    out.print(table)


def _licence(store: Store, record: ReleaseRecord) -> str:
    from normloom.exports.origins import rights

    return ", ".join(one or "unknown" for one in rights(store, record).licences)


def _state(release: Release, now: datetime) -> str:
    why = release.stale(now)
    fresh = f"fresh until {release.until:%Y-%m-%d %H:%M} UTC" if release.until else "fresh"
    behind = f"; {escaped(release.behind)}" if release.behind else ""
    return f"[red]stale[/]: {escaped(why)}{behind}" if why else f"[green]{fresh}[/]{behind}"


def _described(release: Release, now: datetime) -> dict[str, Any]:
    why = release.stale(now)
    until = release.until.isoformat() if release.until else None
    return {
        **vars(release),
        "confirmed": release.confirmed.isoformat(),
        "until": until,
        "stale": why is not None,
        "why": why,
    }
