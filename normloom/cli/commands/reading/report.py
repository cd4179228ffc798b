"""normloom report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from normloom.cli.common import DEFAULT_STORE, JsonOption, StoreOption, SystemArgument, escaped, out
from normloom.core.errors import UsageError
from normloom.core.formats.json_text import json_text


def report(
    system: SystemArgument,
    build: Annotated[
        str | None,
        typer.Option(
            help="The build: its id, a unique prefix or suffix of it, last, last~N or previous (default: last)."
        ),
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--out", help="The page to write (default: SYSTEM-report.html).", show_default=False)
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    json_: JsonOption = False,
) -> None:
    """Write the report of a build: a self-contained HTML page with plots, and the figures as JSON.

    The report is made from the tables in the store; no model runs. Sections without a table are left out.

    Examples:

        normloom report savacu

        normloom report savacu --build previous --out before.html

        normloom report savacu --json | jq '.sections[] | select(.name == "splits") | .data.leakage'

    With --json one object: system, title, build and sections, each with name, title and data. No page is written
    then, unless --out asks for it.
    """
    from normloom.core.names import is_flow_file
    from normloom.report.material import find_material
    from normloom.report.page import page as drawn
    from normloom.report.report import report as reported
    from normloom.settings.systems import name_of, system_named, system_names
    from normloom.store.store import Store

    given, system = system, name_of(system)
    where = page or Path(f"{system}-report.html")
    figures = where.with_suffix(".json")
    if figures == where:
        raise UsageError(
            f"--out {where}: this is the name of the page's JSON file; give the page one that ends in .html"
        )
    known = system_named(given) if is_flow_file(given) or system in system_names() else None
    made = reported(find_material(Store(store), system, build, title=known.title if known else None))
    text = json_text(made)
    if page or not json_:
        _write(where, drawn(made))
        _write(figures, f"{text}\n")
    if json_:
        print(text)
        return
    out.print(f"[bold]{escaped(made['title'])}[/], build {made['build']}", highlight=False)
    out.print(f"[bold]Page[/]    {escaped(where.absolute())}", highlight=False, soft_wrap=True)
    out.print(f"[bold]Figures[/] {escaped(figures.absolute())}", highlight=False, soft_wrap=True)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; give --out a file that can be written") from error
