"""normloom doctor."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from normloom.cli.common import DEFAULT_STORE, FAILED, JsonOption, SetOption, StoreOption, out
from normloom.core.formats.json_text import json_text


def doctor(
    store: StoreOption = DEFAULT_STORE,
    profile: Annotated[
        str | None, typer.Option(help="Also check what builds with this profile need: engines, processors, Ray nodes.")
    ] = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Check what is installed, which engines and devices work, and how to install what is missing.

    Examples:

        normloom doctor

        normloom doctor --profile gpu --set resources.address=ray-head:6379
    """
    from normloom.cli.machine.doctor import examine
    from normloom.cli.machine.profile_needs import examine_profile

    findings = examine(store)
    if profile is not None:
        findings += examine_profile(profile, set_ or [])
    if json_:
        print(json_text([finding.as_json() for finding in findings]))
    else:
        for finding in findings:
            mark = {"ok": "[green]✓[/]", "missing": "[yellow]-[/]", "broken": "[red]✗[/]"}[finding.state]
            out.print(f"{mark} [bold]{finding.name}[/] {escape(finding.detail)}", highlight=False)
            if finding.remedy:
                out.print(f"    [cyan]{escape(finding.remedy)}", highlight=False)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(FAILED)
