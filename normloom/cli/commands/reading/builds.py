"""normloom builds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from normloom.cli.common import DEFAULT_STORE, JsonOption, StoreOption, out, stored_as
from normloom.cli.output.row_text import visible
from normloom.core.errors import UsageError
from normloom.core.formats.json_text import json_text

if TYPE_CHECKING:
    from normloom.history.builds import BuildAccount, BuildLock
    from normloom.history.unfinished import UnfinishedBuild
    from normloom.store.store import Store


def builds(
    system: Annotated[str | None, typer.Argument(help="Only the builds of this system.", show_default=False)] = None,
    store: StoreOption = DEFAULT_STORE,
    limit: Annotated[int, typer.Option(min=1, help="Number of builds to list for each system.")] = 20,
    json_: JsonOption = False,
) -> None:
    """List the builds of a store, newest last, with tables made and reused, rows, tokens, cost, profile and settings.

    Running, failed, cancelled and killed builds are listed too, with the command that resumes them. Tables marked gone
    were removed by normloom gc; a build that needs one rebuilds it.

    Examples:

        normloom builds

        normloom builds savacu --limit 5 --json
    """
    from normloom.store.store import Store

    where, system = Store(store), stored_as(system)
    if system:
        where.require(system)
    found = [build for name in ([system] if system else where.systems()) for build in _newest(where, name, limit)]
    if json_:
        print(json_text([_described(build) for build in found]))
        return
    if not found:
        raise UsageError(f"{where.root} has no builds yet: run normloom build first")
    for build in found:
        for line in _lines(build, where):
            out.print(line, highlight=False, soft_wrap=True)


def _newest(store: Store, system: str, limit: int) -> list[BuildAccount | UnfinishedBuild]:
    """Return the newest builds of a system, finished or not, by their start."""
    from normloom.history.builds import accounts
    from normloom.history.unfinished import unfinished

    found: list[tuple[str, BuildAccount | UnfinishedBuild]] = [
        *((account.lock.build, account) for account in accounts(store, system, limit)),
        *((build.build, build) for build in unfinished(store, system)),
    ]
    found.sort(key=lambda pair: pair[0].partition("-")[0])  # by the start; stable within a second
    return [build for _, build in found[-limit:]]


def _lines(build: BuildAccount | UnfinishedBuild, store: Store) -> Iterator[Text]:
    from normloom.history.resume import resume_command
    from normloom.history.unfinished import UnfinishedBuild

    if isinstance(build, UnfinishedBuild):
        yield Text.assemble((build.build, "bold"), f"  {build.system}  {_when(build)}  {build.state}")
        if build.error:
            yield Text(f"    {visible(build.error)}", "red")
        if build.spent and (build.spent.tokens_in or build.spent.requests):
            yield Text(f"    models: {build.spent}")
        asked = _asked(build)
        if not build.at_work:
            yield Text(f"    to resume: {visible(resume_command(build, store))}")
    else:
        lock = build.lock
        yield Text.assemble((lock.build, "bold"), f"  {lock.system}  {_when(lock)}  {_tables(build)}")
        released = ", ".join(f"{name} {rows:,}" for name, rows in build.released.items())
        yield Text(f"    rows: {released}", "green")
        if lock.spent and (lock.spent.tokens_in or lock.spent.requests):
            yield Text(f"    models: {lock.spent}")
        asked = _asked(lock)
    if asked:
        yield Text(f"    {', '.join(asked)}", "dim")


def _tables(account: BuildAccount) -> str:
    counts = {"made": account.made, "reused": account.reused, "gone": account.gone}
    tables = ", ".join(f"{len(stages)} {what}" for what, stages in counts.items() if stages)
    return f"{len(account.lock.stages)} stages: {tables}"


def _when(build: BuildLock | UnfinishedBuild) -> str:
    return f"{build.started:%Y-%m-%d %H:%M} UTC" if build.started else ""


def _asked(build: BuildLock | UnfinishedBuild) -> list[str]:
    """Return the request of a build: profile, given settings and chosen stages."""
    profile = [f"profile {build.profile}"] if build.profile else []
    chosen = [
        f"{name} {' '.join(value) if isinstance(value, list) else value}" for name, value in build.selection.items()
    ]
    return [*profile, *build.settings, *chosen]


def _described(build: BuildAccount | UnfinishedBuild) -> dict[str, Any]:
    from normloom.history.unfinished import UnfinishedBuild

    lock = build if isinstance(build, UnfinishedBuild) else build.lock
    told: dict[str, Any] = {"state": "finished"}
    if isinstance(build, UnfinishedBuild):
        told = {"state": build.state, "stages": [], "made": [], "reused": [], "gone": [], "released": {}}
    else:
        told |= {"stages": list(build.lock.stages), "released": dict(build.released)}
        told |= {"made": list(build.made), "reused": list(build.reused), "gone": list(build.gone)}
    return {
        **lock.model_dump(exclude={"stages"}),
        "started": lock.started.isoformat() if lock.started else None,
        **told,
    }
