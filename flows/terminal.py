"""Progress bars of a build in a terminal."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from normloom.table import Manifest, PartRecord


@dataclass
class _Line:
    task: TaskID
    started: float | None = None  # when its first part was begun
    tokens_in: int = 0
    tokens_out: int = 0


class TerminalProgress:
    """One line a stage: rows done, tokens read and written per second, time left, then the account of its rows."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("[dim]{task.fields[note]}"),
            console=console,
        )
        self._lines: dict[str, _Line] = {}
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
            self._lines[stage] = _Line(self._progress.add_task(stage, total=total, completed=done, note=note))

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
            line.tokens_in += part.tokens_in
            line.tokens_out += part.tokens_out
            seconds = max(now - line.started, 1e-3)
            note = ""
            if line.tokens_in or line.tokens_out:
                note = f"{line.tokens_in / seconds:,.0f} in, {line.tokens_out / seconds:,.0f} out tokens/s"
            self._progress.update(line.task, advance=part.stop - part.start, note=note)

    def end(self, manifest: Manifest, *, reused: bool) -> None:
        """Close the stage's line with its account of rows."""
        with self._lock:
            if manifest.stage not in self._lines:
                self._lines[manifest.stage] = _Line(self._progress.add_task(manifest.stage, total=1, note=""))
            lost = [f"{count:,} {kind}" for kind in ("dropped", "quarantined") if (count := manifest.count(kind))]
            note = ", ".join([f"{manifest.count('rows'):,} rows", *lost])
            total = max(manifest.rows_in, 1)
            self._progress.update(
                self._lines[manifest.stage].task,
                total=total,
                completed=total,
                note=f"reused, {note}" if reused else note,
            )
