"""Builds of the toy system whose OpenLineage events are read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from openlineage_schemas import validate

from normloom.core.stage import Stage
from normloom.core.table import Manifest, TableRef
from normloom.lineage.openlineage import LineageEvents
from normloom.store.store import Store
from normloom.testing.toy import SCRIPTED, echo_stage, runner, words_stage

FLOW_RUN, TASK_RUN = (f"00000000-0000-4000-8000-00000000000{number}" for number in (1, 2))


def lineage_of(store: Store, build: str = "b1") -> LineageEvents:
    return LineageEvents(system="toy", build=build, store=store, profile="test", flow_run=FLOW_RUN)


def make(store: Store, *later: Callable[[Stage], Stage], build: str = "b1") -> list[dict[str, Any]]:
    """Build the words and what reads them and return the events, each of them valid."""
    lineage, loom, words = lineage_of(store, build), runner(store), words_stage("a", "b", "c", "d")

    def run(stage: Stage, inputs: Sequence[TableRef]) -> Manifest:
        work = partial(loom.run, stage, inputs, [])
        return lineage.run_stage(stage.name, inputs, work, task_run=TASK_RUN)[0]

    try:
        with lineage:
            made = run(words, [])
            for stage in later:
                run(stage(words), [made.ref])
    finally:
        events = read(lineage)
        for event in events:
            validate(event)
    return events


def read(lineage: LineageEvents) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lineage.path.read_text().splitlines()]


def sequence(events: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["job"]["name"], event["eventType"]) for event in events]


failing_stage = partial(echo_stage, model=SCRIPTED.model_copy(update={"options": {"raise_on": ""}}))


WHOLE = [
    ("toy", "START"),
    ("toy.words", "START"),
    ("toy.words", "COMPLETE"),
    ("toy.echo", "START"),
    ("toy.echo", "COMPLETE"),
    ("toy", "COMPLETE"),
]


class Collector(ThreadingHTTPServer):
    """A collector as the client sees one."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Endpoint)
        self.received: list[tuple[str, dict[str, Any]]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Endpoint(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, json.loads(body)))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as its base names it
        pass
