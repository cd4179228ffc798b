"""What commands share: consoles, options that mean the same everywhere, and how values are shown."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.markup import escape

from normloom.core.names import is_flow_file

FAILED, WRONG_USAGE, WAITING = 1, 2, 3

_PIPED = 160  # columns, so that pipes and logs get whole tables instead of the 80 columns that Rich assumes


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Return a console as wide as the terminal, or wide enough for all tables if it writes elsewhere."""
    stream = sys.stderr if stderr else sys.stdout
    fixed = None if "COLUMNS" in os.environ or stream.isatty() else _PIPED
    return Console(stderr=stderr, quiet=quiet, width=fixed)


out = console()
err = console(stderr=True)


def _system_names() -> list[str]:
    from normloom.settings.systems import system_names

    return system_names()


def stored_as(system: str | None) -> str | None:
    """Return the name under which a store has a system that may be given as a file; other names import nothing."""
    if system is None or not is_flow_file(system):
        return system
    from normloom.settings.systems import name_of

    return name_of(system)


def _profile_names() -> list[str]:
    from normloom.settings.config import profile_names

    return profile_names()


SystemArgument = Annotated[
    str,
    typer.Argument(
        help="The system: savacu, misaligntrade, demo_safetybench, persodpo, cross_cultural, cross_align, "
        "missing_modality, conllm, persopilot, alignx, benchmark, one from an installed package, or a Python file.",
        show_default=False,
        autocompletion=_system_names,
    ),
]
StoreOption = Annotated[
    Path, typer.Option("--store", help="Store: a directory, or s3://bucket/prefix.", envvar="NORMLOOM_STORE")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of text.")]
ProfileOption = Annotated[
    str,
    typer.Option(
        help="Models and hardware: local, cpu, hosted, ollama, vllm-cpu, gpu, paper, replay, or a YAML file.",
        autocompletion=_profile_names,
    ),
]
SourceOption = Annotated[
    str | None,
    typer.Option(
        help="Prompts, ratings or responses: a file (CSV, TSV, JSONL, JSON, text, Excel, Parquet, Arrow), a folder or "
        "glob, a URL, or a data set on a hub (default: built-in data)."
    ),
]
TextColumnOption = Annotated[str | None, typer.Option(help="Column of --source that holds the prompts.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Use only the first N records of the source.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting, such as classify.delta=0.4 or resources.actors=1; repeatable."),
]
MaxRequestsOption = Annotated[
    int | None, typer.Option(min=0, help="Maximum number of requests to hosted models.", show_default="the profile's")
]
MaxCostOption = Annotated[
    float | None, typer.Option(min=0, help="Maximum cost of hosted models.", show_default="the profile's")
]
DEFAULT_STORE = Path("store")
DEFAULT_PROFILE = "local"


def assignments(
    *,
    source: str | None,
    text_column: str | None,
    limit: int | None,
    settings: list[str] | None,
    max_requests: int | None = None,
    max_cost: float | None = None,
) -> list[str]:
    """Return options that stand for settings as `name=value` assignments, before those given with --set."""
    named: dict[str, Any] = {
        "source.path": source,
        "source.text_column": text_column,
        "source.limit": limit,
        "spending.max_requests": max_requests,
        "spending.max_cost": max_cost,
    }
    given = [
        f"{name}={value if isinstance(value, int | float) else _yaml(str(value))}"
        for name, value in named.items()
        if value is not None
    ]
    return [*given, *(settings or [])]


def escaped(value: object) -> str:
    """Return a value as one line that rich prints as it is, control characters spelled out."""
    from normloom.cli.output.row_text import visible

    return escape("" if value is None else visible(str(value)))


def _yaml(value: str) -> str:
    """Return a text in one line of YAML, whatever characters it holds."""
    text: str = yaml.safe_dump(value, default_style='"', width=float("inf"))
    return text.strip()
