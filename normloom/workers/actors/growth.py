"""Asking a cluster that can grow for more places.

A task that waits for a place is what an autoscaler goes by. Unlike `ray.autoscaler.sdk.request_resources`, whose last
word stands until somebody takes it back, such a task ends with the process that submitted it, however that ends, and
what several builds ask for adds up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Growth:
    """Places asked for, each of the size `share` (`CPU`, `GPU`). A task that gets one gives it back at once."""

    def __init__(self, share: Mapping[str, float]) -> None:
        self._share = share
        self._asked: list[Any] = []

    def ask(self, places: int) -> None:
        """Ask for this many places from now on, whatever was asked for before."""
        import ray

        if self._asked:
            _, self._asked = ray.wait(self._asked, num_returns=len(self._asked), timeout=0)
        while len(self._asked) > places:
            ray.cancel(self._asked.pop())
        if len(self._asked) < places:
            share = {"num_cpus": self._share["CPU"], "num_gpus": self._share["GPU"]}
            task = ray.remote(max_retries=0, **share)(lambda: None)
            self._asked += [task.remote() for _ in range(places - len(self._asked))]
