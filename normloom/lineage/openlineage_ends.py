"""The end of the OpenLineage runs of builds that could not tell it: their process was killed, or had no time."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from openlineage.client.event_v2 import InputDataset, Job, Run, RunEvent, RunState
from openlineage.client.facet_v2 import error_message_run, tags_run
from openlineage.client.serde import Serde

from normloom.core.machine.object_path import ObjectPath
from normloom.history.unfinished import UnfinishedBuild, dead
from normloom.lineage.openlineage import append_line, configured_collector, record_of
from normloom.lineage.openlineage_facets import PRODUCER
from normloom.store.files import writing
from normloom.store.locks import lease
from normloom.store.store import Store

_KILLED = "the process of the build was killed"


def end_dead_runs(store: Store, system: str) -> list[str]:
    """Append the missing ends to the events of a system's builds that are at work no more; return which builds had any.

    A build that failed has FAIL, one that was cancelled or killed ABORT. Collectors that are configured get them, too.
    """
    return [build.build for build in dead(store, system) if _end(record_of(store, system, build.build), build)]


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a file; a line that is cut, as when a machine lost power, is skipped."""
    for line in path.read_bytes().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def _end(path: Path, build: UnfinishedBuild) -> bool:
    """Append the ends that are missing; several processes may try, one does."""
    if not path.is_file():
        return False
    with writing(path), _held(path):
        ends = [_ending(start, build) for start in open_runs(read_events(path))]
        for event in ends:
            append_line(path, Serde.to_json(event))
    if ends and (collector := configured_collector(path)):
        for event in ends:
            collector.put(event)
        collector.close()
    return bool(ends)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    if isinstance(path, ObjectPath):
        with lease.held(path.with_name(f".{path.name}.lease"), "ends"):
            yield
        return
    with path.open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def open_runs(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the START events of runs that have no end, a run before its parent."""
    runs: dict[str, dict[str, Any]] = {}
    for event in events:
        if event["eventType"] == RunState.START.value:
            runs[event["run"]["runId"]] = event
        else:
            runs.pop(event["run"]["runId"], None)
    return list(reversed(runs.values()))


def _ending(start: dict[str, Any], build: UnfinishedBuild) -> RunEvent:
    failed = build.state == "failed"
    why = build.error or ("the build was cancelled" if build.state == "cancelled" else _KILLED)
    error = error_message_run.ErrorMessageRunFacet(why, "Python")
    run, job = start["run"], start["job"]
    fields = [tags_run.TagsRunFacetFields(**tag) for tag in run["facets"]["tags"]["tags"]]
    facets = {**run["facets"], "tags": tags_run.TagsRunFacet(fields)}  # the client adds to the tags
    return RunEvent(
        eventTime=datetime.now(UTC).isoformat(),
        eventType=RunState.FAIL if failed else RunState.ABORT,
        producer=PRODUCER,
        run=Run(run["runId"], {**facets, "errorMessage": error}),
        job=Job(job["namespace"], job["name"], job["facets"]),
        inputs=[InputDataset(**dataset) for dataset in start["inputs"]],
        outputs=[],
    )
