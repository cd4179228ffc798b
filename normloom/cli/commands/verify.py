"""normloom verify."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from normloom.cli.common import DEFAULT_STORE, FAILED, JsonOption, StoreOption, err, escaped, out
from normloom.core.errors import UsageError


def verify(
    system: Annotated[str | None, typer.Argument(help="Only the tables of this system.", show_default=False)] = None,
    store: StoreOption = DEFAULT_STORE,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove damaged parts; the next build makes them again.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Compare every stored file with the checksum in its table's manifest.

    Exits with 1 if anything is damaged and --repair was not given. Builds verify whatever they read; this command also
    finds damage in tables that no build has read since.

    Examples:

        normloom verify

        normloom verify savacu --repair && normloom build savacu
    """
    from normloom.history.gc import idle
    from normloom.store.store import Store
    from normloom.store.verify import repair as repair_damage
    from normloom.store.verify import verify as verify_store

    where = Store(store)
    if system and system not in where.systems():
        raise UsageError(
            f"no tables of {system} in {where.root}; systems there: {', '.join(where.systems()) or 'none'}"
        )
    found = list(verify_store(where, system))
    if repair:
        for name in dict.fromkeys(damage.system for damage in found):
            with idle(where, name):
                repair_damage(where, [damage for damage in found if damage.system == name])
    if json_:
        print(json.dumps({"damaged": [asdict(damage) for damage in found], "repaired": repair and bool(found)}))
    else:
        for damage in found:
            err.print(f"[red]damaged[/] {escaped(damage)}", highlight=False, soft_wrap=True)
        out.print(_closing(len(found), sorted({damage.system for damage in found}), repaired=repair), highlight=False)
    if found and not repair:
        raise typer.Exit(FAILED)


def _closing(count: int, systems: list[str], *, repaired: bool) -> str:
    if not count:
        return "All files are intact."
    if not repaired:
        return f"{count} damaged; --repair removes the damaged parts, and the next build makes them again."
    return f"{count} damaged, removed; to make them again: " + "; ".join(f"normloom build {name}" for name in systems)
