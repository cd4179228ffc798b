"""The command line of Normloom."""

from __future__ import annotations

import os
import signal
import sys
from functools import cache
from typing import Annotated, NoReturn

import typer
from rich.markup import escape
from typer.main import get_command

from normloom.cli.commands.keeping.doctor import doctor
from normloom.cli.commands.keeping.forget import forget
from normloom.cli.commands.keeping.gc import gc
from normloom.cli.commands.keeping.prune import prune
from normloom.cli.commands.keeping.verify import verify
from normloom.cli.commands.reading.builds import builds
from normloom.cli.commands.reading.diff import diff
from normloom.cli.commands.reading.leaderboard import leaderboard
from normloom.cli.commands.reading.metrics import metrics
from normloom.cli.commands.reading.quarantine import quarantine
from normloom.cli.commands.reading.query import query
from normloom.cli.commands.reading.report import report
from normloom.cli.commands.reading.settings import settings
from normloom.cli.commands.reading.tables import tables
from normloom.cli.commands.reading.trace import trace
from normloom.cli.commands.reading.view import view
from normloom.cli.commands.reading.why import why
from normloom.cli.commands.releasing.audit import audit
from normloom.cli.commands.releasing.export import export
from normloom.cli.commands.releasing.label import label
from normloom.cli.commands.releasing.labels import labels
from normloom.cli.commands.releasing.releases import releases
from normloom.cli.commands.running.build import build
from normloom.cli.commands.running.chat import chat
from normloom.cli.commands.running.notify import app as notify
from normloom.cli.commands.running.plan import plan
from normloom.cli.commands.running.serve import serve
from normloom.cli.commands.running.watch import watch
from normloom.cli.common import FAILED, WAITING, WRONG_USAGE, err
from normloom.cli.interrupt import terminated
from normloom.core.errors import NormloomError, UsageError, WaitingError
from normloom.core.machine.collector import collect_rarely, spare_last_look
from normloom.core.machine.processors import share_processors
from normloom.core.machine.proxies import spare_loopback

app = typer.Typer(
    name="normloom",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
CODES = {UsageError: WRONG_USAGE, WaitingError: WAITING}  # with which the command ends; else failed
COMMANDS = (
    build,
    plan,
    why,
    settings,
    serve,
    label,
    labels,
    audit,
    report,
    leaderboard,
    builds,
    releases,
    export,
    metrics,
    watch,
    diff,
    tables,
    query,
    trace,
    view,
    chat,
    quarantine,
    verify,
    forget,
    gc,
    prune,
    doctor,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(notify, name="notify")


def _show_version(asked: bool) -> None:  # the value of an option
    if asked:
        from normloom import __version__

        typer.echo(f"normloom {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[  # its callback prints and exits
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Rebuild alignment data sets, models and benchmarks: every row accounted for, every stage resumable."""


def main() -> NoReturn:
    """Run the command line and end the process."""
    _end(run_command())


def run_command() -> str | int | None:
    """Return the exit code: 0 done, 1 failed, 2 wrong usage, 3 waits, 130 interrupted, 143 terminated."""
    collect_rarely()
    share_processors()
    signal.signal(signal.SIGTERM, terminated)
    code: str | int | None = 0
    try:
        spare_loopback()
        _command(app)(standalone_mode=True)
    except NormloomError as error:
        colour = "yellow" if isinstance(error, WaitingError) else "red"
        err.print(f"[{colour}]normloom:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        for note in getattr(error, "__notes__", ()):
            err.print(escape(note), highlight=False, soft_wrap=True)
        code = next((code for kind, code in CODES.items() if isinstance(error, kind)), FAILED)
    except SystemExit as ended:
        code = ended.code
    return code


_command = cache(get_command)  # a process that runs several need not read all their signatures each time


def _end(code: str | int | None) -> NoReturn:
    """End the process without waiting for messages to a Prefect server that is gone, which takes minutes."""
    reach = sys.modules.get("normloom.prefect.reach")
    if reach and reach.server_is_lost() and not isinstance(code, str):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)
    spare_last_look()
    sys.exit(code)
