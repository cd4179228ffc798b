"""A Prefect server as a script sees it: a few calls of its REST API."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Result = TypeVar("Result")
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass(frozen=True)
class Api:
    """Calls that wait out a busy database; `alive` tells whether waiting has a point."""

    url: str
    alive: Callable[[], bool]
    password: str | None = None
    outages: bool = False  # of the server or its database, to be waited out as well

    def call(self, path: str, body: Any = None, *, method: str | None = None) -> Any:
        """Return the answer to a GET, or with a body to a POST unless another method is named."""
        headers = {"Content-Type": "application/json"}
        if self.password:
            headers["Authorization"] = f"Basic {base64.b64encode(self.password.encode()).decode()}"
        data = None if body is None else json.dumps(body).encode()

        def answer() -> Any:
            try:
                with urllib.request.urlopen(
                    urllib.request.Request(self.url + path, data, headers, method=method)
                ) as response:
                    return [json.loads(response.read() or b"null")]
            except urllib.error.HTTPError as error:
                with error:
                    if error.code == 503 or (self.outages and error.code == 500):
                        return None  # SQLite is locked: Prefect's own client tries again, too
                    raise AssertionError(f"{path}: {error.code} {error.read().decode()}") from error
            except OSError:
                if not self.outages:
                    raise
                return None

        return self.until(answer)[0]

    def until(self, what: Callable[[], Result], *, run: str | None = None) -> Result:
        """Wait until something is true and return it; a run of which it is expected must not end before."""
        pause = 0.1
        while not (result := what()):
            assert self.alive()
            state = self.run(run)["state"] if run else {"type": ""}
            assert state["type"] not in ENDED, state["message"]
            time.sleep(pause)
            pause = min(1.0, 1.5 * pause)  # each request costs the server CPU time that tests need
        return result

    def found(self, path: str, **filters: Any) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self.call(path, filters)
        return result

    def start(self, deployment: str, **parameters: Any) -> str:
        """Create a run of a deployment and return its id."""
        identity = self.call(f"/deployments/name/{deployment}")["id"]
        return str(self.call(f"/deployments/{identity}/create_flow_run", {"parameters": parameters})["id"])

    def run(self, run: str) -> dict[str, Any]:
        result: dict[str, Any] = self.call(f"/flow_runs/{run}")
        return result

    def cancel(self, run: str) -> None:
        self.call(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})

    def ended(self, run: str) -> str:
        """Wait for the end of a run and return the type of its state."""
        return str(self.until(lambda: (state := self.run(run)["state"]["type"]) in ENDED and state))

    def at_work(self, run: str) -> set[str]:
        """Return the names of the tasks of a run that are at work."""
        running = {"state": {"type": {"any_": ["RUNNING"]}}}
        return {task["name"] for task in self.found("/task_runs/filter", **_tasks_of(run), task_runs=running)}

    def tasks(self, run: str) -> list[dict[str, Any]]:
        """Return the task runs of a run that has ended, once all of them are recorded."""

        def recorded() -> list[dict[str, Any]] | None:
            tasks = self.found("/task_runs/filter", **_tasks_of(run))
            states = [task["state"] for task in tasks]  # what depends on a stage that failed is never begun: NotReady
            return tasks if all(state["type"] in ENDED or state["name"] == "NotReady" for state in states) else None

        return self.until(recorded) or []


def _tasks_of(run: str) -> dict[str, Any]:
    return {"flow_runs": {"id": {"any_": [run]}}}
