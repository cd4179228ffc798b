"""The navigation gets a page for each command."""

from __future__ import annotations

from typing import Any

import typer

from normloom.cli.app import app

COMMANDS = "reference/commands"


def on_config(config: Any) -> Any:
    """Put the commands' pages under the entry `Commands`."""
    group: Any = typer.main.get_command(app)
    names = group.list_commands(group.context_class(group, info_name="normloom"))
    [reference] = [part["Reference"] for part in config["nav"] if "Reference" in part]
    [entry] = [part for part in reference if "Commands" in part]
    entry["Commands"] = [f"{COMMANDS}/index.md", *({name: f"{COMMANDS}/{name}.md"} for name in names)]
    return config
