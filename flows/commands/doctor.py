"""normloom doctor."""

from __future__ import annotations

import json

import typer
from rich.markup import escape

from normloom.flows.commands.common import DEFAULT_STORE, FAILED, JsonOption, StoreOption, out


def doctor(store: StoreOption = DEFAULT_STORE, json_: JsonOption = False) -> None:
    """Say what is installed, which engines and devices work, what is missing and the command that mends it."""
    from normloom.flows.doctor import examine

    findings = examine(store)
    if json_:
        print(json.dumps([finding.as_json() for finding in findings]))
    else:
        for finding in findings:
            mark = {"ok": "[green]✓[/]", "missing": "[yellow]-[/]", "broken": "[red]✗[/]"}[finding.state]
            out.print(f"{mark} [bold]{finding.name}[/] {escape(finding.detail)}", highlight=False)
            if finding.mend:
                out.print(f"    [cyan]{escape(finding.mend)}", highlight=False)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(FAILED)
