"""The command line in the test's own process."""

from __future__ import annotations

import os
import signal
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from hand_made import SCRIPTED_COMMAND

from normloom.cli.app import run_command


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What a failed command says: one line that begins with the program's name."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("normloom: ")
        assert self.out == ""
        return lines[0].removeprefix("normloom: ")


class Command:
    """The real command in this process, in a directory of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch

    def __call__(self, *arguments: str) -> Ran:
        self.monkeypatch.setattr(sys, "argv", ["normloom", *arguments])
        code = run_command()
        assert isinstance(code, int)
        return Ran(code, *self.capsys.readouterr())

    def build(self, *arguments: str) -> Ran:
        return self("build", "savacu", *SCRIPTED_COMMAND, *arguments)


@contextmanager
def interrupted(url: str) -> Iterator[None]:
    """Give this process Ctrl-C once an address answers."""
    ended = threading.Event()

    def interrupt() -> None:
        while not ended.wait(0.05):
            try:
                urllib.request.urlopen(url).close()
            except urllib.error.HTTPError as refused:
                refused.close()
            except OSError:
                continue
            os.kill(os.getpid(), signal.SIGINT)
            return

    waiting = threading.Thread(target=interrupt)
    waiting.start()
    try:
        yield
    finally:
        ended.set()
        waiting.join()
