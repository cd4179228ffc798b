from __future__ import annotations

import json
import re
import resource
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import duckdb
import openlineage_schemas as schemas
import pytest
from openlineage.client.serde import Serde
from openlineage_schemas import validate
from openlineage_toys import FLOW_RUN, TASK_RUN, WHOLE, Collector, failing_stage, lineage_of, make, read, sequence
from s3_server import s3_server

from normloom.core.errors import QuarantineBudgetError, StoreError
from normloom.core.models.protocol import ModelSpec
from normloom.core.table import Manifest
from normloom.history.unfinished import BuildRecord, UnfinishedBuild
from normloom.lineage.openlineage import LineageEvents, append_line
from normloom.lineage.openlineage_ends import end_dead_runs, read_events
from normloom.lineage.openlineage_facets import sources_of
from normloom.lineage.openlineage_models import _named
from normloom.readers import Located
from normloom.store.store import Store
from normloom.tasks.prompts.ingest import Prompts, ingest
from normloom.testing.toy import echo_stage, runner, words_stage

pytestmark = pytest.mark.usefixtures("not_configured")


def test_a_build_and_its_stages_are_runs_under_one_parent(tmp_path: Path) -> None:
    store = Store(tmp_path)
    events = make(store, echo_stage)
    assert sequence(events) == WHOLE
    runs = {event["job"]["name"]: event["run"]["runId"] for event in events}
    assert len({event["run"]["runId"] for event in events}) == 3
    for event in events:
        parent = event["run"]["facets"].get("parent")
        if event["job"]["name"] == "toy":
            assert parent is None
        else:
            assert (parent["run"]["runId"], parent["job"]["name"]) == (runs["toy"], "toy")
        tags = {tag["key"]: tag["value"] for tag in event["run"]["facets"]["tags"]["tags"]}
        assert tags == {"build": "b1", "profile": "test"}
    assert store.systems() == ["toy"]
    assert {manifest.stage for manifest in store.newest("toy")} == {"words", "echo"}


def test_run_ids_follow_from_build_and_stage(tmp_path: Path) -> None:
    first, same, other = (make(Store(tmp_path / name), build=name[:2]) for name in ("b1", "b1-again", "b2"))
    ids = [[event["run"]["runId"] for event in events] for events in (first, same, other)]
    assert ids[0] == ids[1]
    assert not set(ids[0]) & set(ids[2])


def test_tables_are_datasets_with_schema_version_and_statistics(tmp_path: Path) -> None:
    store = Store(tmp_path)
    events = make(store, echo_stage)
    read_at_start, end = events[3]["inputs"][0], events[4]
    words, echo = store.current("toy", "words"), store.current("toy", "echo")
    assert words
    assert echo
    assert end["inputs"] == [read_at_start]
    assert (read_at_start["namespace"], read_at_start["name"]) == ("file", str(tmp_path / "toy" / "words"))
    assert read_at_start["facets"]["version"]["datasetVersion"] == words.key
    written = end["outputs"][0]
    assert written["name"] == str(tmp_path / "toy" / "echo")
    assert written["facets"]["version"]["datasetVersion"] == echo.key
    assert [(field["name"], field["type"]) for field in written["facets"]["schema"]["fields"]] == [
        ("row_id", "string"),
        ("parents", "array"),
        ("word", "string"),
        ("echo", "string"),
    ]
    files = [path for path, _ in echo.files(store.table_directory(echo.ref))]
    statistics = written["outputFacets"]["outputStatistics"]
    assert (statistics["rowCount"], statistics["fileCount"]) == (4, 2)
    assert statistics["size"] == sum(path.stat().st_size for path in files)


def test_checks_are_tests_of_the_run_that_made_them_and_assertions_of_who_reads_the_table(tmp_path: Path) -> None:
    events = make(Store(tmp_path), echo_stage)
    [test] = events[2]["run"]["facets"]["test"]["tests"]
    [assertion] = events[3]["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert (test["type"], test["status"], test["severity"]) == (assertion["assertion"], "pass", assertion["severity"])
    assert assertion["assertion"] == "expect_column_values_to_not_be_null"
    assert (assertion["column"], assertion["success"], assertion["severity"]) == ("word", True, "error")
    assert assertion["actual"] == "0 of 4 rows"


def test_rows_and_model_are_accounted_for(tmp_path: Path) -> None:
    events = make(Store(tmp_path), partial(echo_stage, drop="b", aside="c"))
    facets = events[4]["run"]["facets"]
    rows = facets["normloom_rows"]
    assert (rows["rowsIn"], rows["attempts"], rows["rowsOut"], rows["parts"]) == (4, 4, 2, 2)
    assert (rows["dropped"], rows["quarantined"]) == ({"asked for": 1}, {"asked": 1})
    assert rows["reused"] is False
    assert facets["normloom_model"]["model"] == "toy"
    assert "normloom_model" not in events[2]["run"]["facets"]


def test_a_reused_table_is_told_as_found_not_as_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = make(store, echo_stage)
    again = make(store, echo_stage, build="b2")
    assert sequence(again) == WHOLE
    for made, found in zip(first[2:5:2], again[2:5:2], strict=True):
        assert found["outputs"][0]["facets"] == made["outputs"][0]["facets"]
        assert found["outputs"][0]["outputFacets"] == {}
        assert found["run"]["facets"]["normloom_rows"] == {**made["run"]["facets"]["normloom_rows"], "reused": True}
        assert "test" not in found["run"]["facets"]


def test_a_failing_stage_fails_its_run_and_the_build_s(tmp_path: Path) -> None:
    lineage = lineage_of(Store(tmp_path))
    with pytest.raises(QuarantineBudgetError, match="stage 'echo' put"):
        make(lineage.store, failing_stage)
    events = read(lineage)
    assert sequence(events) == [*WHOLE[:4], ("toy.echo", "FAIL"), ("toy", "FAIL")]
    error = events[4]["run"]["facets"]["errorMessage"]
    assert error["message"].startswith("stage 'echo' put")
    assert "QuarantineBudgetError" in error["stackTrace"]
    assert events[4]["inputs"] == events[3]["inputs"]
    assert events[4]["outputs"] == []


def test_runs_name_their_runs_in_prefect(tmp_path: Path) -> None:
    for event in make(Store(tmp_path), echo_stage):
        facet = event["run"]["facets"]["normloom_prefect"]
        task_run = None if event["job"]["name"] == "toy" else TASK_RUN
        assert (facet["flowRunId"], facet.get("taskRunId")) == (FLOW_RUN, task_run)


@pytest.mark.parametrize(
    ("name", "namespace", "known_as"),
    [
        ("https://me:secret@example.org:8443/a%20b/p.csv?token=secret", "https://example.org:8443", "a%20b/p.csv"),
        ("s3://key:secret@bucket/prompts/*.parquet?endpoint_override=x", "s3://bucket", "prompts/*.parquet"),
        ("hf://datasets/org/name/data.jsonl", "hf://datasets", "org/name/data.jsonl"),
        ("no-such-org/name", "hf://datasets", "no-such-org/name"),
        ("prompts.csv", "file", "{here}/prompts.csv"),
        ("shards of it/*.csv", "file", "{here}/shards of it/*.csv"),
    ],
)
def test_a_source_is_an_input_dataset_without_secrets(tmp_path: Path, name: str, namespace: str, known_as: str) -> None:
    Path("shards of it").mkdir()
    source = Located(name=name, files=(Path("prompts.csv"),), format="csv", digest="d1g3st")
    given = ingest(Prompts(), source=source).given
    lineage, stage = lineage_of(Store(tmp_path)), words_stage("a")
    with lineage:
        lineage.run_stage("words", [], partial(runner(lineage.store).run, stage, [], []), sources=sources_of(given))
    events = read(lineage)
    for event in events:
        validate(event)
    assert "secret" not in lineage.path.read_text()
    [dataset] = events[2]["inputs"]
    assert events[1]["inputs"] == [dataset]
    assert (dataset["namespace"], dataset["name"]) == (namespace, known_as.format(here=Path.cwd()))
    assert dataset["facets"]["version"]["datasetVersion"] == "d1g3st"
    assert dataset["facets"]["dataSource"]["uri"].startswith("file:///" if namespace == "file" else namespace)


def begun(store: Store, *, cut: bool = False) -> LineageEvents:
    """Leave the events of a build that was killed while it made its second stage."""
    lineage = lineage_of(store)
    with suppress(KeyboardInterrupt), lineage:
        manifest, _ = lineage.run_stage("words", [], partial(runner(store).run, words_stage("a"), [], []))
        lineage.run_stage("echo", [manifest.ref], partial(interrupted, manifest), task_run=TASK_RUN)
    lines = lineage.path.read_text().splitlines(keepends=True)[:-2]
    lineage.path.write_text("".join(lines) + ('{"eventType": "COMP' if cut else ""))
    return lineage


def interrupted(_: Manifest) -> tuple[Manifest, bool]:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("error", "state", "why"),
    [
        (None, "ABORT", "the process of the build was killed"),
        (KeyboardInterrupt(), "ABORT", "the build was cancelled"),
        (StoreError("the disk is full"), "FAIL", "the disk is full"),
    ],
)
def test_the_runs_of_a_dead_build_get_their_end_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    collector: Collector,
    error: BaseException | None,
    state: str,
    why: str,
) -> None:
    store = Store(tmp_path)
    lineage = begun(store, cut=True)
    record = BuildRecord(lineage.path.with_name("b1.json"), UnfinishedBuild(system="toy", build="b1"))
    assert end_dead_runs(store, "toy") == []  # it is at work
    if error:
        record.ended(error)
    record.close(finished=False)
    monkeypatch.setenv("OPENLINEAGE_URL", collector.url)
    assert end_dead_runs(store, "toy") == ["b1"]
    assert end_dead_runs(store, "toy") == []
    events = list(read_events(lineage.path))
    ends = events[-2:]
    assert sequence(events) == [*WHOLE[:4], ("toy.echo", state), ("toy", state)]
    for start, end in zip((events[3], events[0]), ends, strict=True):
        validate(end)
        assert end["run"]["runId"] == start["run"]["runId"]
        assert end["inputs"] == start["inputs"]
        assert end["run"]["facets"].pop("errorMessage")["message"] == why
        assert end["run"]["facets"] == start["run"]["facets"]
    assert sequence([event for _, event in collector.received]) == [("toy.echo", state), ("toy", state)]


def test_the_documented_query_skips_a_line_that_is_cut(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "openlineage.md").read_text()
    [query] = re.findall(r'normloom query "(FROM read_json.*?)"', page, re.DOTALL)
    store = Store(tmp_path / "store")
    begun(store, cut=True).path.rename(tmp_path / "cut.jsonl")
    make(store, echo_stage, build="b2")
    (tmp_path / "cut.jsonl").rename(lineage_of(store).path)
    found = duckdb.sql(query.replace("store/savacu", f"{store.root}/toy"))
    assert found is not None
    assert [row[0] for row in found.fetchall()] == ["toy", "toy.echo", "toy.words", "toy.words"]


def test_an_interrupt_aborts_the_build_and_the_stages_at_work_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lineage, started, interrupted = lineage_of(store), Event(), Event()

    def work() -> tuple[Manifest, bool]:
        started.set()
        assert interrupted.wait(30)
        return runner(store).run(words_stage("a"), [], [])

    def build(pool: ThreadPoolExecutor) -> None:
        with lineage:
            stages.append(pool.submit(lineage.run_stage, "words", [], work))
            assert started.wait(30)
            raise KeyboardInterrupt

    stages: list[Future[tuple[Manifest, bool]]] = []
    with ThreadPoolExecutor() as pool:
        with pytest.raises(KeyboardInterrupt):
            build(pool)
        interrupted.set()
    assert stages[0].result()[0].count("rows") == 1
    events = read(lineage)
    assert sequence(events) == [("toy", "START"), ("toy.words", "START"), ("toy.words", "ABORT"), ("toy", "ABORT")]
    for event in events:
        validate(event)


def test_stages_in_many_threads_write_whole_lines(tmp_path: Path) -> None:
    store = Store(tmp_path)
    manifest, _ = runner(store).run(words_stage("a", "b"), [], [])
    names = [f"stage_{number}" for number in range(40)]
    with lineage_of(store) as lineage, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: lineage.run_stage(name, [manifest.ref], lambda: (manifest, True)), names))
    told = sequence(read(lineage))
    assert sorted(told[1:-1]) == sorted((f"toy.{name}", state) for name in names for state in ("START", "COMPLETE"))


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "toy").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write .*b1\.openlineage\.jsonl"), lineage_of(Store(tmp_path)):
        pass


def test_the_event_in_the_documentation_is_valid() -> None:
    page = Path(__file__).parents[2] / "docs" / "openlineage.md"
    [example] = re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL)
    validate(json.loads(example))


FAULTS: list[schemas.Fault] = [
    (lambda event: event["run"].pop("runId"), "runId"),
    (lambda event: event.update(eventTime="yesterday"), "date-time"),
    (lambda event: event["outputs"][0]["outputFacets"]["outputStatistics"].update(rowCount="4"), "integer"),
    (lambda event: event["run"]["facets"]["normloom_rows"].pop("attempts"), "attempts"),
    (lambda event: event["run"]["facets"]["normloom_model"].update(tokensOut=-1), "minimum"),
    (lambda event: event["run"]["facets"]["normloom_model"].pop("_producer"), "_producer"),
    (lambda event: event["run"]["facets"]["parent"]["run"].update(runId="1"), "uuid"),
    (lambda event: event["run"]["facets"]["normloom_prefect"].pop("flowRunId"), "flowRunId"),
    (lambda event: event["outputs"][0]["facets"]["schema"]["fields"][1]["fields"][0].pop("name"), "name"),
    (lambda event: event.update(eventType="DONE"), "DONE"),
    (lambda event: event["inputs"][0]["facets"]["version"].pop("_schemaURL"), "_schemaURL"),
    (lambda event: event["inputs"][0]["inputFacets"]["dataQualityAssertions"].pop("assertions"), "assertions"),
]
OWN_FAULTS: list[schemas.Fault] = [
    (lambda event: event["outputs"][0].update(namespace=""), "non-empty"),
    (lambda event: event["run"]["facets"].update(rows=event["run"]["facets"]["tags"]), "'rows' was unexpected"),
    (lambda event: event["job"]["facets"].update(event["run"]["facets"]), "were unexpected"),
    (lambda event: event["run"]["facets"].update(test=event["run"]["facets"]["tags"]), "tests"),
    (lambda event: event["run"]["facets"]["parent"].update(_schemaURL=event["schemaURL"]), "ParentRunFacet"),
    (lambda event: event["outputs"][0].update(inputFacets={}), "inputFacets"),
]


def test_the_validation_sees_what_is_wrong(tmp_path: Path) -> None:
    schemas.refuses(schemas.validate_own, make(Store(tmp_path), echo_stage)[4], [*FAULTS, *OWN_FAULTS])


@pytest.mark.skipif(
    schemas.PUBLISHED is None,
    reason="clone https://github.com/OpenLineage/OpenLineage and set OPENLINEAGE_SPEC to its folder `spec`",
)
def test_the_published_schemas_take_our_events_and_no_broken_ones(tmp_path: Path) -> None:
    events = lives(tmp_path)
    for event in events:
        schemas.validate_published(event)
    schemas.refuses(schemas.validate_published, events[4], FAULTS)


def test_every_facet_is_what_the_client_s_class_of_it_makes(tmp_path: Path) -> None:
    facets = [(name, facet) for event in lives(tmp_path) for name, facet, *_ in schemas.facets_of(event)]
    assert {name for name, _ in facets} == {*schemas.CLASSES, "normloom_model", "normloom_prefect", "normloom_rows"}
    for name, facet in facets:
        if name in schemas.CLASSES:
            fields = {field: value for field, value in facet.items() if not field.startswith("_")}
            assert Serde.to_dict(schemas.CLASSES[name](producer=facet["_producer"], **fields)) == facet


def lives(path: Path) -> list[dict[str, Any]]:
    """Return the events of a build that completes and of one that fails: every facet is in one of them."""
    failing = lineage_of(Store(path), "b2")
    with pytest.raises(QuarantineBudgetError):
        make(failing.store, failing_stage, build="b2")
    return [*make(failing.store, echo_stage), *read(failing)]


def test_a_line_that_does_not_fit_leaves_no_piece_of_it(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_line(path, "first")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))  # as a disk that is full: the rest of a write is refused
    try:
        with pytest.raises(OSError, match="File too large"):
            append_line(path, "second" * 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "first\n"
    append_line(path, "third")
    assert path.read_text() == "first\nthird\n"


def test_a_model_whose_files_are_on_the_nodes_alone_has_the_name_that_they_have_there() -> None:
    assert _named(ModelSpec(engine="transformers", model="/nodes/have/it")) == ("file", "/nodes/have/it")


def test_the_runs_of_a_dead_build_in_object_storage_get_their_end_once() -> None:
    with s3_server() as server:
        store = Store(f"s3://{server.bucket}/ends")
        lineage = begun(store)
        for build in ("b1", "b2"):  # the second has told nothing
            BuildRecord(lineage.path.with_name(f"{build}.json"), UnfinishedBuild(system="toy", build=build)).close(
                finished=False
            )
        assert end_dead_runs(store, "toy") == ["b1"]
        assert end_dead_runs(store, "toy") == []
        assert sequence(list(read_events(lineage.path))) == [*WHOLE[:4], ("toy.echo", "ABORT"), ("toy", "ABORT")]
