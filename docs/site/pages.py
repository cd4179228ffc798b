"""Pages of the site that are made when it is built: the start, commands, the Python API, decisions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mkdocs_gen_files
import typer

import normloom
from normloom.cli.app import app

ROOT = Path(normloom.__file__).parents[1]


def write(name: str, text: str) -> None:
    """Write a page of the site."""
    with mkdocs_gen_files.open(name, "w") as page:
        page.write(text)


def from_root(name: str) -> str:
    """Return a page of the repository's top folder with its links as the site has them."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/([^)]+)\)", r"](\1)", text)
    for file in ("CONTRIBUTING", "SECURITY", "CHANGELOG"):
        text = text.replace(f"]({file}.md)", f"]({file.lower()}.md)")
    return re.sub(r"\]\(((?:deployments|examples|tests|docker-compose)[^)]*)\)", r"](../\1)", text)


def command_lines(name: str, command: Any, depth: int = 2) -> list[str]:
    """Return the description of a command, and of those below it."""
    context = command.context_class(command, info_name=name)
    lines = [f"{'#' * depth} {name}", "", "```", command.get_usage(context).removeprefix("Usage: "), "```", ""]
    lines += [re.sub(r"^ {4,}", "    ", command.help or "", flags=re.MULTILINE), ""]
    rows = []
    for parameter in command.get_params(context):
        shown = ", ".join([*parameter.opts, *parameter.secondary_opts]) or parameter.name or ""
        text = getattr(parameter, "help", None) or ""
        rows.append(f"| `{shown}` | {text.replace('|', '/').replace('<', '&lt;')} |")
    lines += ["| | |", "|---|---|", *rows, ""]
    if hasattr(command, "list_commands"):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found:
                lines += command_lines(f"{name} {below}", found, depth + 1)
    return lines


def commands() -> str:
    """Return the page of all commands."""
    group: Any = typer.main.get_command(app)
    context = group.context_class(group, info_name="normloom")
    lines = ["# Commands", "", "`normloom COMMAND --help` shows the same in a terminal.", ""]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command:
            lines += command_lines(f"normloom {name}", command)
    return "\n".join(lines)


def python() -> str:
    """Return the page of the public names."""
    lines = ["# Python API", "", "`import normloom as nl`; a name is imported when it is first used.", ""]
    for name, home in sorted(normloom.HOMES.items(), key=lambda pair: pair[0].lower()):
        lines += [f"::: {home}.{name}", ""]
    return "\n".join(lines)


def decisions() -> str:
    """Return the list of decisions, one line each."""
    lines = ["# Decisions", ""]
    for path in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        lines.append(f"- [{title}](decisions/{path.name})")
    return "\n".join(lines) + "\n"


write("index.md", from_root("README.md"))
for file in ("CONTRIBUTING", "SECURITY", "CHANGELOG"):
    write(f"{file.lower()}.md", from_root(f"{file}.md"))
write("reference/commands.md", commands())
write("reference/python.md", python())
write("reference/testing.md", "# Testing kit\n\n::: normloom.testing\n    options:\n      members: true\n")
write("decisions.md", decisions())
