"""normloom builds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from normloom.errors import UsageError
from normloom.flows.commands.common import DEFAULT_STORE, JsonOption, StoreOption, out

if TYPE_CHECKING:
    from normloom.builds import BuildAccount


def builds(
    system: Annotated[str | None, typer.Argument(help="Only the builds of this system.", show_default=False)] = None,
    store: StoreOption = DEFAULT_STORE,
    limit: Annotated[int, typer.Option(min=1, help="Builds to list of each system, the newest.")] = 20,
    json_: JsonOption = False,
) -> None:
    """List the builds of a store, newest last: tables made and reused, rows of the last stages, profile, settings.

    Tables that are gone were removed by normloom gc; a build that needs one makes it again.

    Examples:

        normloom builds

        normloom builds savacu --limit 5 --json
    """
    from normloom.builds import accounts
    from normloom.store import Store

    where = Store(store)
    if system and system not in where.systems():
        raise UsageError(
            f"there is no system {system!r} in {where.root}; there is {', '.join(where.systems()) or 'none'}"
        )
    found = [account for name in ([system] if system else where.systems()) for account in accounts(where, name, limit)]
    if json_:
        print(json.dumps([_described(account) for account in found], ensure_ascii=False))
        return
    if not found:
        raise UsageError(f"there are no builds in {where.root}: run normloom build first")
    for account in found:
        for line in _lines(account):
            out.print(line, highlight=False)


def _lines(account: BuildAccount) -> Iterator[Text]:
    lock = account.lock
    counts = {"made": account.made, "reused": account.reused, "gone": account.gone}
    tables = ", ".join(f"{len(stages)} {what}" for what, stages in counts.items() if stages)
    when = f"{lock.started:%Y-%m-%d %H:%M} UTC" if lock.started else ""
    yield Text.assemble((lock.build, "bold"), f"  {lock.system}  {when}  {len(lock.stages)} stages: {tables}")
    released = ", ".join(f"{name} {rows:,}" for name, rows in account.released.items())
    yield Text(f"    rows: {released}", "green")
    if asked := _asked(account):
        yield Text(f"    {', '.join(asked)}", "dim")


def _asked(account: BuildAccount) -> list[str]:
    """Return what was asked of a build: its profile, the settings given and the stages chosen."""
    lock = account.lock
    profile = [f"profile {lock.profile}"] if lock.profile else []
    chosen = [
        f"{name} {' '.join(value) if isinstance(value, list) else value}" for name, value in lock.selection.items()
    ]
    return [*profile, *lock.settings, *chosen]


def _described(account: BuildAccount) -> dict[str, Any]:
    lock = account.lock
    return {
        **lock.model_dump(exclude={"stages"}),
        "started": lock.started.isoformat() if lock.started else None,
        "stages": list(lock.stages),
        "made": list(account.made),
        "reused": list(account.reused),
        "gone": list(account.gone),
        "released": dict(account.released),
    }
