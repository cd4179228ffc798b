"""Progress bars of a build in a terminal."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from normloom.core.outlook import Outlook, RowsDone
from normloom.core.rows.text import counted
from normloom.core.table import Manifest, PartRecord
from normloom.readers.read import READERS
from normloom.workers.actors.run_log import LOGGERS


@contextmanager
def busy(console: Console, what: str) -> Iterator[None]:
    """Show what is starting before there is progress: a spinner in a terminal, elsewhere a line.

    A quiet console shows nothing.
    """
    if console.is_terminal and not console.quiet:
        with console.status(f"[dim]{what}"):
            yield
        return
    if console.is_jupyter:
        console.print(f"[dim]{what}")
    elif not console.quiet:
        print(time.strftime("%H:%M:%S"), what, file=sys.stderr, flush=True)  # noqa: T201  # as the log's lines that follow
    yield


class _Above(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        self._console.print(record.getMessage().strip(), style=style, markup=False, highlight=False)

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.name.startswith(READERS)


@contextmanager
def printing_above(console: Console) -> Iterator[None]:
    """Print warnings, and findings of readers, above the progress bars."""
    with handling(_Above(console)):
        yield


@contextmanager
def handling(handler: logging.Handler) -> Iterator[None]:
    """Send the records of our loggers, and Python's warnings, to a handler."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


@dataclass
class _Line:
    task: TaskID
    started: float | None = None  # when its first part was begun
    tokens_in: int = 0
    tokens_out: int = 0
    done: RowsDone = field(default_factory=RowsDone)


class _Left(TimeRemainingColumn):
    """The build's estimate of the time left, if any."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["left"], style="cyan") if "left" in task.fields else super().render(task)


class TerminalProgress:
    """A line for the build, and one per stage: rows done, time left, tokens read and written per second.

    A finished stage's line has the account of its rows.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Left(compact=True, elapsed_when_finished=True),
            TextColumn("[dim]{task.fields[note]}"),
            console=console,
        )
        self._lines: dict[str, _Line] = {}
        self._build: TaskID | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, stage: str, *, total: int, done: int) -> None:
        """Open the stage's line."""
        with self._lock:
            note = f"{done} rows done before" if done else ""
            task = self._progress.add_task(stage, total=total, completed=done, note=note)
            self._lines[stage] = _Line(task, done=RowsDone(done))

    def note(self, stage: str, text: str) -> None:
        """Show what the stage is at."""
        with self._lock:
            if stage in self._lines:
                self._progress.update(self._lines[stage].task, note=text)

    def advance(self, stage: str, part: PartRecord) -> None:
        """Move the bar by one part."""
        with self._lock:
            line = self._lines[stage]
            now = time.monotonic()
            line.started = line.started or now - part.seconds
            line.done.add(part)
            line.tokens_in += part.tokens_in
            line.tokens_out += part.tokens_out
            seconds = max(now - line.started, 1e-3)
            note = ""
            if line.tokens_in or line.tokens_out:
                note = f"{line.tokens_in / seconds:,.0f} in, {line.tokens_out / seconds:,.0f} out tokens/s"
            self._progress.update(line.task, completed=line.done.rows, note=note)

    def within(self, stage: str, part: int, rows: int) -> None:
        """Move the bar by what is done of a part."""
        with self._lock:
            line = self._lines[stage]
            line.done.within[part] = rows
            self._progress.update(line.task, completed=line.done.rows)

    def end(self, manifest: Manifest, *, reused: bool) -> None:
        """Close the stage's line with its account of rows."""
        with self._lock:
            if manifest.stage not in self._lines:
                self._lines[manifest.stage] = _Line(self._progress.add_task(manifest.stage, total=1, note=""))
            lost = [f"{count:,} {kind}" for kind in ("dropped", "quarantined") if (count := manifest.count(kind))]
            note = ", ".join([counted(manifest.count("rows")), *lost])
            total = max(manifest.rows_in, 1)
            self._progress.update(
                self._lines[manifest.stage].task,
                total=total,
                completed=total,
                note=f"reused, {note}" if reused else note,
            )

    def whole(self, outlook: Outlook) -> None:
        """Move the build's bar."""
        with self._lock:
            if self._build is None:
                self._build = self._progress.add_task("[bold]build", total=outlook.of, note="", left="")
            note = f"tables, {outlook.share:.0%} of the work"
            self._progress.update(self._build, completed=outlook.tables, note=note, left=outlook.left)
