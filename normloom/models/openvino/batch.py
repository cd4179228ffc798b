"""The continuous batch of OpenVINO GenAI: candidates of several callers written side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from normloom.core.errors import ModelError
from normloom.models.requests.progress import current_teller
from normloom.models.transformers.decoding import Draft, Stops


@dataclass
class Task:
    """A draft to write as `config`, a `GenerationConfig` of the library, says.

    `shared` names the beginnings that its prompt has in common with others'. `refused` is set if the cache
    cannot hold the draft.
    """

    draft: Draft
    config: Any
    stops: Stops
    shared: tuple[Hashable, ...]
    handle: Any = None
    done: bool = False
    refused: bool = False


class Batch:
    """A pipeline of the library with at most `size` drafts in work, from all callers.

    `load` returns the pipeline; `tensor` makes the library's tensor of a numpy array.
    """

    def __init__(self, load: Callable[[], Any], tensor: Callable[[np.ndarray], Any], *, size: int) -> None:
        self._load = load
        self._tensor = tensor
        self._size = size
        self._lock = Lock()
        self._number = 0
        self._in_work = 0
        self._pipeline = load()
        self._usage = dict.fromkeys(("prompt_tokens", "slots_used", "slots"), 0.0)

    def write(self, tasks: Sequence[Task]) -> None:
        """Fill `tokens` and `finish` of each task's draft; every caller drives the batch for all.

        Raises `ModelError` if the library fails, for all who wait; the next call finds a fresh pipeline.
        """
        waiting, working = list(tasks), list[Task]()
        tell, most = current_teller(), sum(task.config.max_new_tokens for task in tasks)
        read = set[Hashable]()  # beginnings that are in the prefix cache
        with self._lock:
            pipeline = self._pipeline
        while waiting or working:
            with self._lock:
                if pipeline is not self._pipeline:
                    raise ModelError("OpenVINO failed on a request of another part that was in the same batch")
                admitted, waiting = _admit(waiting, working, read, room=self._size - self._in_work)
                working += admitted
                self._advance(admitted)
            for task in working:
                self._collect(task)
                if task.draft.tokens:
                    read.update(task.shared)
            with self._lock:
                self._in_work -= sum(task.done for task in working)
            working = [task for task in working if not task.done]
            tell(sum(task.config.max_new_tokens if task.done else len(task.draft.tokens) for task in tasks) / most)

    def take_usage(self) -> dict[str, float]:
        """Return what was counted since this was last asked, as `Metered` names it."""
        with self._lock:
            taken, self._usage = self._usage, dict.fromkeys(self._usage, 0.0)
        return taken

    def _advance(self, admitted: Sequence[Task]) -> None:
        """Start the admitted tasks and write one more token of every draft in work."""
        try:
            for task in admitted:
                self._number += 1
                prompt = self._tensor(np.array([task.draft.prompt], np.int64))
                task.handle = self._pipeline.add_request(self._number, prompt, task.config)
            self._pipeline.step()
        except RuntimeError as error:
            self._pipeline, self._in_work = self._load(), 0  # what is left in the old one would fail again
            raise ModelError(f"OpenVINO failed on a request: {error}") from error
        self._in_work += len(admitted)
        self._usage["prompt_tokens"] += sum(len(task.draft.prompt) for task in admitted)
        self._usage["slots_used"] += self._pipeline.get_metrics().scheduled_requests
        self._usage["slots"] += self._size

    @staticmethod
    def _collect(task: Task) -> None:
        """Take the tokens that the last steps wrote, up to one that ends the draft."""
        while task.handle.can_read():
            for output in task.handle.read().values():
                for token in output.generated_ids:
                    task.draft.tokens.append(token)
                    if task.stops.reached(task.draft.tokens):
                        task.draft.finish = "stop"
                        task.done = True
                        task.handle.stop()
                        return
        status = task.handle.get_status().name
        task.done = status != "RUNNING"
        task.refused = status == "IGNORED"


def _admit(
    waiting: Sequence[Task], working: Sequence[Task], read: Collection[Hashable], *, room: int
) -> tuple[list[Task], list[Task]]:
    """Return the tasks to start now, at most `room`, and the others.

    A task waits while the beginning of its prompt is just being read for another one: read once, it is in the
    prefix cache for both.
    """
    reading = {name for task in working if not task.draft.tokens for name in task.shared}.difference(read)
    admitted, left = list[Task](), list[Task]()
    for task in waiting:
        if len(admitted) < room and reading.isdisjoint(task.shared):
            admitted.append(task)
            reading.update(name for name in task.shared if name not in read)
        else:
            left.append(task)
    return admitted, left
