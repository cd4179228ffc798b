"""The command line in the test's own process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
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


def until_ctrl_c(url: str, *arguments: str, **environment: str) -> Ran:
    """Run a command as a process of its own, and give it Ctrl-C once an address answers."""
    with subprocess.Popen(
        [sys.executable, "-m", "normloom", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while process.poll() is None and not _answers(url):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    return Ran(process.returncode, out, err)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url).close()
    except urllib.error.HTTPError as refused:
        refused.close()
    except OSError:
        return False
    return True
