"""The command line of Normloom."""

from __future__ import annotations

import signal
import sys
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from normloom.errors import NormloomError, UsageError
from normloom.flows.commands.build import build
from normloom.flows.commands.builds import builds
from normloom.flows.commands.common import FAILED, WRONG_USAGE, err
from normloom.flows.commands.diff import diff
from normloom.flows.commands.doctor import doctor
from normloom.flows.commands.gc import gc
from normloom.flows.commands.leaderboard import leaderboard
from normloom.flows.commands.notify import app as notify
from normloom.flows.commands.plan import plan
from normloom.flows.commands.quarantine import quarantine
from normloom.flows.commands.query import query
from normloom.flows.commands.releases import releases
from normloom.flows.commands.report import report
from normloom.flows.commands.serve import serve
from normloom.flows.commands.settings import settings
from normloom.flows.commands.tables import tables
from normloom.flows.commands.trace import trace
from normloom.flows.commands.verify import verify
from normloom.flows.commands.why import why
from normloom.flows.interrupt import terminated
from normloom.proxies import spare_loopback

app = typer.Typer(
    name="normloom",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    build,
    plan,
    why,
    settings,
    serve,
    report,
    leaderboard,
    builds,
    releases,
    diff,
    tables,
    query,
    trace,
    quarantine,
    verify,
    gc,
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
    """Rebuild alignment datasets and benchmarks: every row accounted for, every stage resumable."""


def main() -> NoReturn:
    """Run the command line; 0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated."""
    signal.signal(signal.SIGTERM, terminated)
    try:
        spare_loopback()
        app(standalone_mode=True)
    except NormloomError as error:
        err.print(f"[red]normloom:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        for note in getattr(error, "__notes__", ()):
            err.print(escape(note), highlight=False, soft_wrap=True)
        sys.exit(WRONG_USAGE if isinstance(error, UsageError) else FAILED)
    sys.exit(0)


if __name__ == "__main__":
    main()
