"""Commands that pages and messages name, with the store that they need."""

from __future__ import annotations

import shlex
from pathlib import Path

from normloom.core.machine.object_path import ObjectPath

DEFAULT = Path("store")


def store_option(root: Path | ObjectPath | str) -> str:
    """Return " --store ROOT", quoted for a shell; nothing for the default, or if it is not known."""
    return "" if str(root) in {"", str(DEFAULT.absolute())} else f" --store {shlex.quote(str(root))}"


def view_command(system: str, root: Path | ObjectPath | str, *, stage: str | None = None) -> str:
    """Return the command that opens a system's release, or the table of a stage, in a browser.

    A link cannot: the page is served while somebody looks, at a port and with a token of that time.
    """
    table = f" --table {shlex.quote(stage)}" if stage else ""
    return f"normloom view {shlex.quote(system)}{table}{store_option(root)}"
