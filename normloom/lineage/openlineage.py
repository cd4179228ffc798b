"""The life of a build as OpenLineage events.

The build is one run, and each stage is one whose parent it is; run ids follow from the ids of build and
stage. Every event is a line of `<store>/<system>/builds/<build>.openlineage.jsonl`, which is the record. Where
OpenLineage is configured (`OPENLINEAGE_URL`, `OPENLINEAGE__TRANSPORT__...`, `OPENLINEAGE_CONFIG` or an
`openlineage.yml`) events are sent there too, by a thread of its own: a collector that is slow or gone costs the
build nothing but one warning.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from types import TracebackType
from uuid import NAMESPACE_URL, uuid5

from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import RunFacet, error_message_run, job_type_job, parent_run, tags_run
from openlineage.client.serde import Serde
from openlineage.client.transport.noop import NoopConfig, NoopTransport

from normloom.core.errors import BuildCancelledError, StoreError
from normloom.core.machine.object_path import ObjectPath
from normloom.core.models.protocol import ModelSpec
from normloom.core.table import Manifest, TableRef
from normloom.lineage.openlineage_facets import (
    PRODUCER,
    NormloomPrefectRunFacet,
    input_dataset,
    output_dataset,
    run_facets,
    source_dataset,
)
from normloom.lineage.openlineage_models import model_datasets
from normloom.readers.locate import Located
from normloom.store.files import writing
from normloom.store.layout import BUILDS
from normloom.store.store import Store

NAMESPACE = "normloom"
PATIENCE = 3.0  # seconds that the end of a build waits for its last events to be sent

_UNTOLD = (StoreError,)  # a full disk ends the build; that its end cannot be recorded is not the error to report

log = logging.getLogger("normloom.openlineage")


class LineageEvents:
    """The events of one build: a context around it, in which `run_stage` is around each stage, in any thread."""

    def __init__(
        self, *, system: str, build: str, store: Store, profile: str | None = None, flow_run: str | None = None
    ) -> None:
        self.system = system
        self.build = build
        self.store = store
        self.profile = profile
        self.flow_run = flow_run
        self._collector: EventCollector | None = None
        self._running: dict[str, _Running] = {}
        self._lock = Lock()

    @property
    def path(self) -> Path:
        """Where the events are, one JSON object in a line."""
        return record_of(self.store, self.system, self.build)

    def __enter__(self) -> LineageEvents:
        self._collector = configured_collector(self.path)
        self._emit(RunState.START)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with suppress(*_UNTOLD if error else ()):
                for stage in list(self._running):  # an interrupt does not wait for stages at work
                    self._end(stage, _state(error), error)
                self._emit(_state(error), facets=_error_facets(error))
        finally:
            if self._collector:
                self._collector.close()

    def run_stage(
        self,
        stage: str,
        tables: Sequence[TableRef],
        work: Callable[[], tuple[Manifest, bool]],
        *,
        sources: Sequence[Located] = (),
        models: Sequence[ModelSpec] = (),
        task_run: str | None = None,
    ) -> tuple[Manifest, bool]:
        """Return what `work` returns, the stage's manifest and whether it was published before; say when and how.

        `tables`, `sources` and `models` are all that the stage reads; `task_run` is its id in Prefect.
        """
        inputs = [input_dataset(self.store, self.store.manifest(ref)) for ref in dict.fromkeys(tables)]
        running = _Running([*map(source_dataset, sources), *inputs, *model_datasets(models)], task_run)
        with self._lock:
            self._running[stage] = running
        self._emit(RunState.START, stage, running)
        try:
            manifest, reused = work()
        except BaseException as error:
            with suppress(*_UNTOLD):
                self._end(stage, _state(error), error)
            raise
        self._end(
            stage,
            RunState.COMPLETE,
            facets=run_facets(manifest, reused=reused),
            outputs=[output_dataset(self.store, manifest, reused=reused)],
        )
        return manifest, reused

    def _end(
        self,
        stage: str,
        state: RunState,
        error: BaseException | None = None,
        *,
        facets: Mapping[str, RunFacet] | None = None,
        outputs: Sequence[OutputDataset] = (),
    ) -> None:
        """Emit the last event of a stage, unless the end of the build has done so: a run ends once."""
        with self._lock:
            running = self._running.pop(stage, None)
        if running:
            self._emit(state, stage, running, facets={**(facets or {}), **_error_facets(error)}, outputs=outputs)

    def _emit(
        self,
        state: RunState,
        stage: str | None = None,
        running: _Running | None = None,
        *,
        facets: Mapping[str, RunFacet] | None = None,
        outputs: Sequence[OutputDataset] = (),
    ) -> None:
        tags = {"build": self.build, **({"profile": self.profile} if self.profile else {})}
        run: dict[str, RunFacet] = {
            "tags": tags_run.TagsRunFacet([tags_run.TagsRunFacetFields(*tag, "NORMLOOM") for tag in tags.items()]),
            **(facets or {}),
        }
        if self.flow_run:
            task_run = running.task_run if running else None
            run["normloom_prefect"] = NormloomPrefectRunFacet(flowRunId=self.flow_run, taskRunId=task_run)
        if stage:
            build = parent_run.Run(self._run_id()), parent_run.Job(NAMESPACE, self.system)
            run["parent"] = parent_run.ParentRunFacet(*build)
        kind = job_type_job.JobTypeJobFacet("BATCH", "NORMLOOM", "STAGE" if stage else "BUILD")
        name = f"{self.system}.{stage}" if stage else self.system
        event = RunEvent(
            eventTime=datetime.now(UTC).isoformat(),
            eventType=state,
            producer=PRODUCER,
            run=Run(self._run_id(stage), run),
            job=Job(NAMESPACE, name, {"jobType": kind}),
            inputs=running.inputs if running else [],
            outputs=list(outputs),
        )
        self._write(Serde.to_json(event))
        if self._collector:
            self._collector.put(event)

    def _run_id(self, stage: str | None = None) -> str:
        return str(uuid5(NAMESPACE_URL, "/".join(["normloom", self.system, self.build, *([stage] if stage else [])])))

    def _write(self, line: str) -> None:
        with self._lock, writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append_line(self.path, line)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, all of it or, if the disk is full, nothing: readers fail at a line that is cut.

    A line that was cut before, as when a machine loses power, does not take this one with it.
    """
    left = f"{line}\n".encode()
    if isinstance(path, ObjectPath):  # one process writes it
        path.put((path.read_bytes() if path.is_file() else b"") + left)
        return
    with path.open("a+b", buffering=0) as file:
        whole = file.seek(0, os.SEEK_END)
        if whole and os.pread(file.fileno(), 1, whole - 1) != b"\n":
            left = b"\n" + left
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            file.truncate(whole)
            raise


def record_of(store: Store, system: str, build: str) -> Path:
    """Return the file of a build's events."""
    return store.root / system / BUILDS / f"{build}.openlineage.jsonl"


@dataclass(frozen=True)
class _Running:
    """What a stage at work reads, and its task run in Prefect."""

    inputs: list[InputDataset]
    task_run: str | None


class EventCollector:
    """Sends events in their order from a thread of its own."""

    def __init__(self, client: OpenLineageClient, record: Path) -> None:
        self._client = client
        self._record = record
        self._events: SimpleQueue[RunEvent | None] = SimpleQueue()
        self._failing = self._warned = False
        self._thread = Thread(target=self._send, name="openlineage", daemon=True)
        self._thread.start()

    def put(self, event: RunEvent) -> None:
        """Send an event after those before it."""
        self._events.put(event)

    def close(self) -> None:
        """Wait a moment for the last events, unless they have no chance."""
        self._events.put(None)
        self._thread.join(0 if self._failing else PATIENCE)
        if self._thread.is_alive():
            self._warn("it does not answer")

    def _send(self) -> None:
        with closing(self._client):
            for event in iter(self._events.get, None):
                try:
                    self._client.emit(event)
                    self._failing = False
                except Exception as error:  # noqa: BLE001  # each transport raises its own; none may stop a build
                    self._failing = True
                    self._warn(error)

    def _warn(self, reason: object) -> None:
        if not self._warned:
            self._warned = True
            log.warning("events did not reach the OpenLineage collector (%s); all are in %s", reason, self._record)


def configured_collector(record: Path) -> EventCollector | None:
    """Return the collector that the user configured, None if there is none; `record` is named if it does not answer."""
    client = _configured_client()
    return EventCollector(client, record) if client else None


def _configured_client() -> OpenLineageClient | None:
    """Return a client for the transport that the user configured, None if there is none or it is disabled."""
    try:
        found = OpenLineageClient(transport=NoopTransport(NoopConfig())).config.transport or {}
        if not (found.get("type") or os.environ.get("OPENLINEAGE_URL")):
            return None
        client = OpenLineageClient()
    except Exception as error:  # noqa: BLE001  # whatever is wrong with it, the record does not need it
        log.warning("the configuration of OpenLineage cannot be used (%s): events are not sent", error)
        return None
    if client.transport.kind == NoopTransport.kind:
        return None
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it would tell of every retry
    return client


def _state(error: BaseException | None) -> RunState:
    if error is None:
        return RunState.COMPLETE
    stopped = isinstance(error, BuildCancelledError) or not isinstance(error, Exception)
    return RunState.ABORT if stopped else RunState.FAIL


def _error_facets(error: BaseException | None) -> dict[str, RunFacet]:
    if error is None:
        return {}
    message = str(error) or type(error).__name__
    trace = "".join(traceback.format_exception(error))
    return {"errorMessage": error_message_run.ErrorMessageRunFacet(message, "Python", trace)}
