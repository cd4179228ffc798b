"""Ends the processes of an engine whose holder is gone, however it went. Run as a script, by its path.

vLLM's engine runs in processes of its own and does not notice when the process that talks to it is killed.
"""

from __future__ import annotations

import os
import sys
import time

import psutil

MARK = "NORMLOOM_ENGINE"  # environment variable by which an engine's processes are known


def marked(mark: str) -> list[psutil.Process]:
    """Return the processes of this engine, this one left out."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:  # it ended, or is another user's
            continue
    return found


def guard(mark: str) -> None:
    """Wait until the holder closes this process's input or dies, then kill what is left of its engine."""
    sys.stdin.buffer.read()
    while left := marked(mark):
        for process in left:
            process.kill()
        time.sleep(0.1)  # what one of them had just started is found next time


if __name__ == "__main__":
    guard(sys.argv[1])
