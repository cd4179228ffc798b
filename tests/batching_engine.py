"""An engine whose models say how many requests they work at, as vLLM's do. A model's name is a folder for its notes."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from normloom.core.machine.declared import declared
from normloom.core.models.protocol import Completion, GenerateRequest
from normloom.models.registry import Engine
from normloom.models.scripted import ScriptedModel

NAME = "batching"
ENGINE = Engine(module="batching_engine", attribute="BatchingModel", version=1, rows=64, files=False, random=True)
LONG, LAST = "long", "last"
PATIENCE_SECONDS = 60.0


@contextmanager
def installed(folder: Path, name: str = NAME) -> Iterator[None]:
    """Let Python find the engine in the module `<name>_engine` as one of an installed package, in a new folder."""
    information = folder / f"{name}_engine-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-engine\nVersion: 1\n")
    (information / "entry_points.txt").write_text(f"[normloom.engines]\n{name} = {name}_engine:ENGINE\n")
    sys.path.insert(0, str(folder))
    declared.cache_clear()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        declared.cache_clear()


def most_at_once(folder: Path) -> int:
    """Return how many calls one model worked at at most."""
    return max(int(path.name.partition(" ")[2]) for path in folder.glob("calls *"))


class BatchingModel(ScriptedModel):
    """Writes a text that asks for `LONG` until one that asks for `LAST` has been begun."""

    requests_at_once = 2
    _calls = 0
    _counting = threading.Lock()

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """Return what a scripted model does, later."""
        folder = Path(self.name)
        with self._counting:
            BatchingModel._calls += 1
            (folder / f"calls {BatchingModel._calls}").touch()
        try:
            said = {str(request.prompt) for request in requests}
            if LAST in said:
                (folder / "begun").touch()
            if LONG in said:
                give_up = time.monotonic() + PATIENCE_SECONDS
                while not (folder / "begun").exists():
                    if time.monotonic() > give_up:
                        os._exit(1)
                    time.sleep(0.01)
            time.sleep(0.1)
            return super().generate(requests)
        finally:
            with self._counting:
                BatchingModel._calls -= 1
