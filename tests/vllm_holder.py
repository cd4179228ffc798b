"""Models of the engine vllm in processes of their own, as actors hold them.

Run as a script: the second process is forked from the first, so that vLLM is imported once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import psutil

from normloom.core.errors import NormloomError
from normloom.core.machine.collector import collect_rarely
from normloom.models import Completion, GenerateRequest, ModelSpec, ScoreRequest, Scores, load_model


class Held:
    """A model in another process."""

    def __init__(self, calls: Connection) -> None:
        self.calls = calls
        self.process = psutil.Process(calls.recv())

    def ask(self, method: str, *arguments: object) -> Any:
        """Return what a method of the model returns, or raise its error."""
        self.calls.send((method, arguments))
        answer = self.calls.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scores]:
        scores: list[Scores] = self.ask("score", requests)
        return scores

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        completions: list[Completion] = self.ask("generate", requests)
        return completions


@contextmanager
def two_holders(*specs: ModelSpec) -> Iterator[tuple[Held, Held]]:
    """Load two models in two processes, which end when nobody can ask them any more."""
    (first, to_first), (second, to_second) = Pipe(), Pipe()
    ends = to_first.fileno(), to_second.fileno()
    with first, second, subprocess.Popen([sys.executable, __file__, *map(str, ends)], pass_fds=ends) as process:
        to_first.close()
        to_second.close()
        try:
            for calls, spec in zip((first, second), specs, strict=True):
                calls.send(spec)
            yield Held(first), Held(second)
        finally:
            process.kill()


def hold(calls: Connection) -> None:
    """Load a model, then do what is asked of it."""
    model = load_model(calls.recv(), threads=1)
    calls.send(os.getpid())
    while True:
        try:
            method, arguments = calls.recv()
        except EOFError:
            return
        try:
            calls.send(getattr(model, method)(*arguments))
        except NormloomError as error:
            calls.send(error)


if __name__ == "__main__":
    collect_rarely()
    import_module("normloom.models.vllm.process")
    mine, other = (Connection(int(end)) for end in sys.argv[1:])
    if not os.fork():
        mine, other = other, mine
    other.close()
    hold(mine)
