"""Progress bars of a build in a notebook."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from rich.console import Console

from normloom.cli.output.terminal import TerminalProgress

REFRESH_SECONDS = 0.5


class NotebookProgress(TerminalProgress):
    """The progress lines as one output of the building cell, updated twice a second."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._ended = threading.Event()
        self._refresher = threading.Thread(target=self._refresh, name="notebook-progress", daemon=True)

    def __enter__(self) -> Self:
        from IPython.display import display

        self._shown = display(self._progress, display_id=True)  # type: ignore[no-untyped-call]  # IPython's
        self._refresher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._refresher.join()
        self._shown.update(self._progress)

    def _refresh(self) -> None:
        while not self._ended.wait(REFRESH_SECONDS):
            self._shown.update(self._progress)
