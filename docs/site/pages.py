"""Pages of the site that are made when it is built: the start, commands, the Python API, decisions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mkdocs_gen_files
import typer

import normloom
from normloom.cli.app import app

ROOT = Path(normloom.__file__).parents[1]
COMMANDS = "reference/commands"


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


def command_lines(name: str, command: Any, depth: int = 1) -> list[str]:
    """Return the description of a command, and of those below it."""
    context = command.context_class(command, info_name=name)
    lines = [f"{'#' * depth} {name}", "", "```", command.get_usage(context).removeprefix("Usage: "), "```", ""]
    lines += [re.sub(r"^ {4,}", "    ", command.help or "", flags=re.MULTILINE), ""]
    lines += [
        "| option | | default |",
        "|---|---|---|",
        *(option(one, context) for one in command.get_params(context)),
        "",
    ]
    if hasattr(command, "list_commands"):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found:
                lines += command_lines(f"{name} {below}", found, depth + 1)
    return lines


def option(parameter: Any, context: Any) -> str:
    """Return an option or argument as a row of a table."""
    shown = ", ".join([*parameter.opts, *parameter.secondary_opts]) or parameter.name or ""
    if parameter.param_type_name == "argument":
        shown = shown.upper()
    text = (getattr(parameter, "help", None) or "").replace("|", "/").replace("<", "&lt;")
    default = parameter.get_default(context) if getattr(parameter, "show_default", False) else None
    told = "" if default in (None, False, (), [], "") else f"`{default}`"
    return f"| `{shown}` | {text} | {told} |"


def commands() -> Iterator[tuple[str, str, str]]:
    """Yield each command's name, first sentence and page."""
    group: Any = typer.main.get_command(app)
    context = group.context_class(group, info_name="normloom")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command:
            yield name, command.get_short_help_str(limit=120), "\n".join(command_lines(f"normloom {name}", command))


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
index = ["# Commands", "", "`normloom COMMAND --help` shows the same in a terminal.", "", "| | |", "|---|---|"]
for name, summary, page in commands():
    write(f"{COMMANDS}/{name}.md", page)
    index.append(f"| [`{name}`]({name}.md) | {summary} |")
write(f"{COMMANDS}/index.md", "\n".join(index) + "\n")
write("reference/python.md", python())
write("reference/testing.md", "# Testing kit\n\n::: normloom.testing\n    options:\n      members: true\n")
write("decisions.md", decisions())
