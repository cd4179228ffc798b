"""The command line of Normloom."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from normloom.errors import NormloomError, UsageError

FAILED, WRONG_USAGE = 1, 2

app = typer.Typer(
    name="normloom",
    help="Rebuild alignment data sets and benchmarks: every row accounted for, every stage resumable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
out = Console()
err = Console(stderr=True)

SystemArgument = Annotated[str, typer.Argument(help="The system to build: savacu.")]
StoreOption = Annotated[Path, typer.Option("--store", help="Directory of the tables.", envvar="NORMLOOM_STORE")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of text.")]
DEFAULT_STORE = Path("store")


@app.command()
def build(
    system: SystemArgument,
    profile: Annotated[str, typer.Option(help="Models and sizes: local, gpu, paper, or a YAML file.")] = "local",
    source: Annotated[
        Path | None,
        typer.Option(help="CSV, TSV, JSONL, JSON or Parquet file of prompts (default: the built-in prompts)."),
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of --source that holds the prompts.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first N records of the source.")] = None,
    store: StoreOption = DEFAULT_STORE,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting, such as classify.delta=0.4 or resources.actors=1; repeatable."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Bring a system's tables up to date and print what was made.

    Stages whose inputs, settings, templates, models and code are unchanged are reused. A build that was
    interrupted goes on where it stopped when the same command is given again.

    Examples:

        normloom build savacu

        normloom build savacu --source my_prompts.csv --text-column prompt --limit 200
    """
    from flows.doctor import examine_store
    from flows.interrupt import INTERRUPTED, MESSAGE
    from flows.run import run_build

    if (place := examine_store(store)).state == "broken":
        raise UsageError(f"{place.detail}: {place.mend}")
    settings: dict[str, Any] = {"source.path": source, "source.text_column": text_column, "source.limit": limit}
    given = [
        f"{name}={_yaml(str(value) if isinstance(value, Path) else value)}"
        for name, value in settings.items()
        if value is not None
    ]
    try:
        report = run_build(system, profile=profile, assignments=[*given, *(set_ or [])], root=store, quiet=json_)
    except KeyboardInterrupt:
        err.print(MESSAGE)
        raise typer.Exit(INTERRUPTED) from None
    if json_:
        print(json.dumps(report))


@app.command()
def tables(
    system: Annotated[str | None, typer.Argument(help="Only the tables of this system.")] = None,
    store: StoreOption = DEFAULT_STORE,
    json_: JsonOption = False,
) -> None:
    """List the newest table of each stage: rows, what left them, key and age."""
    from normloom.store import Store

    where = Store(store)
    systems = [system] if system else where.systems()
    manifests = [manifest for name in systems for manifest in where.newest(name)]
    if json_:
        print(json.dumps([_described(manifest, where) for manifest in manifests]))
        return
    if not manifests:
        raise UsageError(
            f"there are no tables{f' of {system}' if system else ''} in {where.root}: run normloom build first"
        )
    table = Table(box=None, pad_edge=False)
    table.add_column("view", no_wrap=True)
    for heading in ("rows", "dropped", "quarantined"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("key", overflow="ellipsis")  # what gives way in a narrow terminal
    table.add_column("created (UTC)", no_wrap=True)
    for manifest in manifests:
        counts = [f"{manifest.count(kind):,}" for kind in ("rows", "dropped", "quarantined")]
        table.add_row(
            f"{manifest.system}_{manifest.stage}", *counts, manifest.key, manifest.created[:16].replace("T", " ")
        )
    out.print(table)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="A SELECT; each stage's newest table is a view such as savacu_classify.")],
    store: StoreOption = DEFAULT_STORE,
    limit: Annotated[int, typer.Option(min=1, help="Rows to show as text; --json gives all.")] = 40,
    json_: JsonOption = False,
) -> None:
    """Run a DuckDB query over the tables.

    Views: SYSTEM_STAGE, SYSTEM_STAGE_dropped and SYSTEM_STAGE_quarantined.
    """
    from normloom.store import Store
    from normloom.views import query as run_query

    names, rows = run_query(Store(store), sql, limit=None if json_ else limit + 1)
    if json_:
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], default=str, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(escape(name), overflow="fold")
    for row in rows[:limit]:
        table.add_row(*(escaped(value) for value in row))
    out.print(table)
    if len(rows) > limit:
        err.print(f"[dim]first {limit} rows; --limit shows more, --json all")


@app.command()
def doctor(store: StoreOption = DEFAULT_STORE, json_: JsonOption = False) -> None:
    """Say what is installed, which engines and devices work, what is missing and the command that mends it."""
    from flows.doctor import examine

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


def _described(manifest: Any, store: Any) -> dict[str, Any]:
    return {
        "system": manifest.system,
        "stage": manifest.stage,
        "view": f"{manifest.system}_{manifest.stage}",
        "key": manifest.key,
        "rows": manifest.count("rows"),
        "dropped": manifest.count("dropped"),
        "quarantined": manifest.count("quarantined"),
        "created": manifest.created,
        "path": str(store.table_directory(manifest.ref)),
    }


def _yaml(value: str | int) -> str:
    """Return a value in one line of YAML, whatever characters it holds."""
    text: str = yaml.safe_dump(value, default_style='"', width=float("inf"))
    return text.strip()


def escaped(value: object) -> str:
    """Return a value as text that rich prints as it is."""
    return escape("" if value is None else str(value))


def main() -> NoReturn:
    """Run the command line; 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        app(standalone_mode=True)
    except NormloomError as error:
        err.print(f"[red]normloom:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(WRONG_USAGE if isinstance(error, UsageError) else FAILED)
    sys.exit(0)


if __name__ == "__main__":
    main()
