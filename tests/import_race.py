"""Threads of a fresh process that use and import at once what actors and builds import lazily; run as a script.

Its imports are slowed down, as they are on a busy machine, so that other threads see modules half imported.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from importlib.abc import MetaPathFinder
from typing import Any

from normloom.core.errors import ModelError
from normloom.models import GenerateRequest, ModelSpec, load_model
from normloom.models.openai.engine import OpenaiModel
from normloom.workers.actors.log_server import LogServer
from normloom.workers.actors.run_log import RunLog, drain, sending

SLOWED = "httpx."
PAUSE_S = 0.05
ASKING = 3
SPEC = ModelSpec(
    engine="openai", model="toy", options={"base_url": "http://127.0.0.1:9/v1", "key_variable": None, "retries": 0}
)

asked, finished = threading.Semaphore(0), threading.Event()


class Slowly(MetaPathFinder):
    """Finds nothing, and takes its time about it."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:  # noqa: ARG002
        if fullname.startswith(SLOWED):
            time.sleep(PAUSE_S)


def ask() -> None:
    """Load the model and ask it, again and again, until the others are done; that nobody answers is no matter."""
    while not finished.wait(0.01):
        model = load_model(SPEC)
        assert isinstance(model, OpenaiModel)
        with closing(model), suppress(ModelError):
            [completion] = model.generate([GenerateRequest(instruction="", prompt="text", seeds=(1,))])
            raise AssertionError(completion.error)
        asked.release()


def send_log() -> None:
    """Log as an actor does, which sends it with httpx."""
    with sending(RunLog("stage", "flow", "task", LogServer("http://127.0.0.1:9/api"))):
        logging.getLogger("normloom").warning("a line to send")
    drain(60)


def main() -> None:
    sys.setswitchinterval(1e-4)
    sys.meta_path.insert(0, Slowly())
    failed: list[str] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # told at the end
            failed.append(f"{work.__name__}: {type(error).__name__}: {error}")
            asked.release()

    asking = [threading.Thread(target=run, args=(ask,)) for _ in range(ASKING)]
    logging_ = threading.Thread(target=run, args=(send_log,))
    for thread in asking:
        thread.start()
    for _ in asking:
        asked.acquire()
    logging_.start()
    logging_.join()
    finished.set()
    for thread in asking:
        thread.join()
    sys.exit("\n".join(failed) or 0)


if __name__ == "__main__":
    main()
