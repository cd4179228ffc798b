"""The folders of a long-running step and the progress it reports, while a part is made."""

from __future__ import annotations

import fcntl
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from normloom.core.outlook import about
from normloom.core.run import Run
from normloom.models.requests.progress import current_teller
from normloom.store.files import writing
from normloom.store.layout import SCRATCH, scratch_of
from normloom.store.parts import require_writer

TELL_SECONDS = 5.0  # between lines
CHECK_SECONDS = 2.0  # between looks whether another build has taken over

log = logging.getLogger("normloom.crew")
_noted: ContextVar[Callable[[str], None] | None] = ContextVar("noted", default=None)


@contextmanager
def noting(listener: Callable[[str], None]) -> Iterator[None]:
    """Let `listener` hear what steps say in this context."""
    token = _noted.set(listener)
    try:
        yield
    finally:
        _noted.reset(token)


@contextmanager
def run_in(directory: Path, *, stage: str, writer: str, gpus: float = 0.0) -> Iterator[Run]:
    """Give the run of a stage whose product is to be in a directory of the store; its files are in a hidden folder.

    Waits for a process of an earlier build that is still in the scratch folder. `progress` raises StoreError once
    another build has taken over.
    """
    scratch = scratch_of(directory)
    local = scratch.parent  # the table's own directory if that is on a disk
    files = local / f".files-{writer}.tmp"
    with writing(scratch):
        scratch.mkdir(exist_ok=True, parents=local != directory)
        handle = (local / f".{SCRATCH}").open("a")
    try:
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)  # the kernel frees it when its holder dies
            require_writer(directory, writer)
            with writing(files):
                for left in local.glob(".files-*.tmp"):  # of runs that were killed
                    shutil.rmtree(left, ignore_errors=True)
                files.mkdir()
            yield Run(scratch, files, _Told(stage, directory, writer), gpus)
    finally:
        shutil.rmtree(files, ignore_errors=True)


@dataclass
class _Told:
    """Passes on how far a step is, and holds it to be the one that may write."""

    stage: str
    directory: Path
    writer: str
    _begun: float = field(default_factory=time.monotonic)
    _first: tuple[int, float] | None = None  # step and tokens of the first report
    _said: float = 0.0
    _checked: float = 0.0

    def __call__(self, step: int, of: int, figures: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now > self._checked + CHECK_SECONDS:
            self._checked = now
            require_writer(self.directory, self.writer)
        current_teller()(step / of if of else 1.0)
        if self._first is None:
            self._first, self._begun = (step, figures.get("tokens", 0.0)), now
        if step < of and now < self._said + TELL_SECONDS:
            return
        self._said = now
        line = self._line(step, of, figures, now - self._begun)
        if listener := _noted.get():
            listener(line)
        else:
            log.info("%s: %s", self.stage, line)

    def _line(self, step: int, of: int, figures: Mapping[str, float], seconds: float) -> str:
        shown = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items() if name != "tokens"]
        first, tokens = self._first or (step, 0.0)
        if seconds and "tokens" in figures:
            shown.append(f"{(figures['tokens'] - tokens) / seconds:,.0f} tokens/s")
        if seconds and first < step < of:
            shown.append(f"{about((of - step) * seconds / (step - first))} left")
        return ", ".join([f"step {step:,} of {of:,}", *shown])
