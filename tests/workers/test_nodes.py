"""Builds on a Ray cluster of several nodes: one is killed half-way, others come."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import yaml
from patient import add_node, start_cluster

from normloom.cli.machine.profile_needs import examine_profile
from normloom.core.errors import ConfigError
from normloom.core.models.protocol import ModelSpec
from normloom.core.progress import LogProgress
from normloom.core.table import PartRecord
from normloom.models import model_identity
from normloom.planning.keys import key_fields
from normloom.settings.settings import stages_for
from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.testing.toy import SCRIPTED, echo_stage, runner, words_stage
from normloom.workers.actors.actor_crew import ActorCrew
from normloom.workers.actors.node_engines import _asked, _connected
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

WORDS = words_stage(*(f"word{number}" for number in range(80)))
SLOW = SCRIPTED.model_copy(update={"options": {"words": 4, "latency_s": 0.25}})
STAGE = echo_stage(WORDS, model=SLOW)


@pytest.fixture(scope="module")
def head() -> Iterator[Any]:
    """A cluster whose only node has no place for an actor."""
    cluster = start_cluster()
    yield cluster
    cluster.shutdown()


@pytest.fixture
def cluster(head: Any) -> Any:
    """The cluster, on which nothing is at work; nodes of the test before may be there."""
    wait_for(lambda: not actors())
    return head


def with_nodes(cluster: Any, number: int) -> list[Any]:
    """Give the cluster this many nodes of one CPU and return them; as many as are there stay."""
    for node in list(cluster.worker_nodes)[number:]:
        cluster.remove_node(node)
    while len(cluster.worker_nodes) < number:
        add_node(cluster, num_cpus=1)
    cluster.wait_for_nodes(120)
    return list(cluster.worker_nodes)


def wait_for(done: Callable[[], bool]) -> None:
    """Wait until `done`, three minutes at most."""
    deadline = time.monotonic() + 180
    while not done():
        assert time.monotonic() < deadline, "what the test waits for does not come"
        time.sleep(0.1)


def actors() -> list[psutil.Process]:
    """Return the processes of all actors on the nodes of this test."""
    family = psutil.Process().children(recursive=True)
    return [process for process in family if process.name().startswith("ray::ModelActor")]


class Change(LogProgress):
    """Changes the cluster after a number of parts and remembers which parts were made."""

    def __init__(self, parts: int, change: Any) -> None:
        self.parts, self.change = parts, change
        self.seen: list[int] = []
        self.thread: threading.Thread | None = None

    def advance(self, stage: str, part: PartRecord) -> None:
        if stage != "echo":
            return
        self.seen.append(part.index)
        if len(self.seen) == self.parts:
            self.thread = threading.Thread(target=self.change)
            self.thread.start()


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed: no engine is missing")
def test_an_engine_that_nodes_lack_is_named_before_work_begins(cluster: Any) -> None:
    with_nodes(cluster, 1)
    absent = ModelSpec(engine="vllm", model="some/model")
    resources = Resources(actors=1, threads=1, address=cluster.address)
    pool = Pool(resources, uses=[SCRIPTED, absent])
    with (
        pytest.raises(ConfigError, match=r"^Ray node .*: engine 'vllm' \(model 'some/model'\) needs vllm"),
        closing(pool),
        pool.lease(SCRIPTED),
    ):
        pass
    found = {finding.name: finding for finding in examine_profile("gpu", [f"resources.address={cluster.address}"])}
    assert found["Ray"].state == "ok"


def test_a_build_that_waits_for_a_place_says_who_has_it(cluster: Any) -> None:
    with_nodes(cluster, 1)
    resources = Resources(actors=1, threads=1, address=cluster.address)
    one, two = (SCRIPTED.model_copy(update={"model": name}) for name in ("one", "two"))
    told, heard = list[str](), threading.Event()

    def note(text: str) -> None:
        told.append(text)
        heard.set()

    def wait_for_it() -> None:
        with closing(Pool(resources, uses=[two], holder="build second of toy")) as pool, pool.lease(two, note=note):
            pass

    ray.init(address=cluster.address, log_to_driver=False)
    try:
        with closing(Pool(resources, uses=[one], holder="build first of toy")) as first, first.lease(one):
            second = threading.Thread(target=wait_for_it)
            second.start()
            assert heard.wait(120)
        second.join(120)
        assert not second.is_alive()
    finally:
        ray.shutdown()
    assert told[0] == "waits for 1 CPU, held by build first of toy"


def test_builds_that_share_a_cluster_never_wait_for_each_other_s_idle_models(cluster: Any) -> None:
    builds = 5
    with_nodes(cluster, builds)
    resources = Resources(actors=1, threads=1, address=cluster.address)
    idle, told = threading.Barrier(builds), list[str]()

    def work(number: int) -> int:
        kept, wanted = (SCRIPTED.model_copy(update={"model": f"{name} {number}"}) for name in ("kept", "wanted"))
        pool = Pool(resources, uses=[kept, wanted], holder=f"build {number}")
        with closing(pool):
            with pool.lease(kept):
                pass
            idle.wait(120)  # now each build keeps an idle model, and together they fill the cluster
            with pool.lease(wanted, note=told.append):
                return number

    ray.init(address=cluster.address, log_to_driver=False)
    try:
        with ThreadPoolExecutor(builds) as threads:
            assert sorted(threads.map(work, range(builds), timeout=300)) == list(range(builds))
    finally:
        ray.shutdown()


def test_a_build_goes_on_when_a_node_is_killed(tmp_path: Path, cluster: Any) -> None:
    nodes = with_nodes(cluster, 2)
    resources = Resources(actors=2, threads=1, address=cluster.address)
    progress = Change(10, lambda: cluster.remove_node(nodes[0], allow_graceful=False))
    loom = replace(runner(Store(tmp_path / "cluster")), pool=Pool(resources), progress=progress)
    words, _ = loom.run(WORDS, [], [])
    table, _ = loom.run(STAGE, [words.ref], [])
    assert progress.thread is not None
    loom.pool.close()
    assert sorted(progress.seen) == list(range(40))  # each part was made once
    alone = runner(Store(tmp_path / "alone"))
    words, _ = alone.run(WORDS, [], [])
    undisturbed, _ = alone.run(
        echo_stage(WORDS, model=SCRIPTED.model_copy(update={"options": {"words": 4}})), [words.ref], []
    )
    assert table.content == undisturbed.content
    assert table.count("quarantined") == 0


class Grow(LogProgress):
    """Adds a node after two parts, and after six waits until it has an actor."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.seen: list[int] = []

    def advance(self, stage: str, part: PartRecord) -> None:
        if stage != "echo":
            return
        self.seen.append(part.index)
        if len(self.seen) == 2:
            add_node(self.cluster, num_cpus=1)
        if len(self.seen) == 6:
            wait_for(lambda: len(actors()) == 2)


def test_a_crew_grows_with_its_cluster(tmp_path: Path, cluster: Any) -> None:
    with_nodes(cluster, 1)
    progress = Grow(cluster)
    pool = Pool(Resources(actors=1, max_actors=2, threads=1, address=cluster.address))
    try:
        loom = replace(runner(Store(tmp_path)), pool=pool, progress=progress)
        words, _ = loom.run(WORDS, [], [])
        table, _ = loom.run(STAGE, [words.ref], [])
        with pool.lease(SLOW) as crew:
            assert isinstance(crew, ActorCrew)
            assert crew.actors == 2
    finally:
        pool.close()
    assert table.work
    assert table.work.loads == 2
    assert sorted(progress.seen) == list(range(40))


def node_with(place: Path, version: str) -> dict[str, str]:
    """Return the environment of a node where a package `vllm` of this version is installed."""
    package = place / version
    (package / "vllm").mkdir(parents=True)
    (package / "vllm" / "__init__.py").touch()
    (package / f"vllm-{version}.dist-info").mkdir()
    (package / f"vllm-{version}.dist-info" / "METADATA").write_text(f"Name: vllm\nVersion: {version}\n")
    return {"PYTHONPATH": os.pathsep.join([str(package), *sys.path])}


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed: this machine has the engine itself")
def test_a_key_holds_what_the_nodes_have_of_an_engine_and_nodes_that_differ_are_refused(
    tmp_path: Path, cluster: Any
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (model / name).write_text("{}")
    spec = {"engine": "vllm", "model": str(model)}
    models = {**dict.fromkeys(("classifier", "expander", "judge"), spec), "generators": {"g": spec}}
    resources = {"actors": 1, "threads": 1, "address": cluster.address}
    profile = tmp_path / "profile.yaml"
    profile.write_text(yaml.safe_dump({"resources": resources, "systems": {"savacu": {"models": models}}}))

    def engine() -> str:
        found = stages_for("savacu", profile=str(profile), assignments=[], store=Store(tmp_path))
        stage = next(stage for stage in stages_of(*found.ends) if stage.model and stage.model.engine == "vllm")
        return str(key_fields("savacu", stage, inputs=[], sides=[])["model"]["vllm"])

    with_nodes(cluster, 0)
    with pytest.raises(ConfigError, match=r"^no node of the Ray cluster .* has room for an actor .* \(1 CPU\)"):
        engine()
    add_node(cluster, num_cpus=1, env_vars=node_with(tmp_path, "0.99.1"))
    cluster.wait_for_nodes()
    assert engine() == "0.99.1"
    assert model_identity(ModelSpec(**spec))["vllm"] == "absent"
    add_node(cluster, num_cpus=1, env_vars=node_with(tmp_path, "0.99.2"))
    cluster.wait_for_nodes()
    with pytest.raises(
        ConfigError, match=r"would give different results .*: vllm is '0\.99\.\d' and '0\.99\.\d'; install"
    ):
        engine()


def test_a_node_that_is_lost_while_it_is_asked_is_left_out(cluster: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "normloom.pool")
    with_nodes(cluster, 1)
    doomed = add_node(cluster, num_cpus=1, env_vars={"NORMLOOM_TEST_DOOMED": "1"})
    cluster.wait_for_nodes(120)

    def question(specs: Sequence[ModelSpec]) -> int:
        if "NORMLOOM_TEST_DOOMED" in os.environ:
            for process in (os.getppid(), os.getpid()):
                os.kill(process, signal.SIGKILL)
        return len(specs)

    resources = Resources(actors=1, threads=1, address=cluster.address)
    with _connected(resources):
        answers = _asked(question, [SCRIPTED], resources)
    cluster.remove_node(doomed)
    assert [answer for _, answer in answers] == [1]
    assert "does not answer; it is left out" in caplog.text


def autoscaling(address: str) -> dict[str, Any]:
    """Return settings of Ray's autoscaler with one or two nodes, which are processes of this machine."""
    node = {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 1, "max_workers": 2}
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    flags = ("use_node_id_as_ip", "disable_node_updaters", "disable_launch_config_check")
    return {
        "cluster_name": "test",
        "max_workers": 2,
        "provider": {"type": "fake_multinode", "gcs_address": address, **dict.fromkeys(flags, True)},
        "available_node_types": {"ray.head.default": head, "node": node},
        "head_node_type": "ray.head.default",
        "idle_timeout_minutes": 0.2,
        **{name: {} for name in ("auth", "file_mounts")},
        **{name: [] for name in ("cluster_synced_files", "worker_setup_commands", "worker_start_ray_commands")},
    }


@pytest.fixture
def autoscaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster with an autoscaler (Ray's own `AutoscalingCluster` ends every other Ray of the machine)."""
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
    from ray.util import get_node_ip_address

    monkeypatch.setenv("RAY_FAKE_CLUSTER", "1")
    monkeypatch.setenv("RAY_OVERRIDE_NODE_ID_FOR_TESTING", FAKE_HEAD_NODE_ID)
    monkeypatch.setenv("AUTOSCALER_UPDATE_INTERVAL_S", "1")

    def settings() -> dict[str, Any]:
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        config = tmp_path / f"autoscaling-{port}.json"
        config.write_text(json.dumps(autoscaling(f"{get_node_ip_address()}:{port}")))
        return {"gcs_server_port": port, "autoscaling_config": str(config)}

    before = set(psutil.Process().children(recursive=True))  # others of this worker's tests, such as a Prefect server
    cluster = start_cluster(settings)
    yield cluster
    family = set(psutil.Process().children(recursive=True)) - before
    cluster.shutdown()
    for process in psutil.wait_procs(family, 1)[1]:  # the nodes that the autoscaler started
        process.kill()


class Unhurried(LogProgress):
    """Takes its time over each part for as long as there is one actor."""

    def advance(self, stage: str, part: PartRecord) -> None:  # noqa: ARG002  # as the runner calls it
        if stage == "echo" and len(actors()) == 1:
            time.sleep(1)


def test_a_crew_makes_its_cluster_grow(tmp_path: Path, autoscaled: Any) -> None:
    import ray

    source = words_stage(*(f"word{number}" for number in range(400)))
    pool = Pool(Resources(actors=1, max_actors=2, threads=1, address=autoscaled.address))
    ray.init(address=autoscaled.address, log_to_driver=False)
    try:
        wait_for(lambda: ray.cluster_resources().get("CPU", 0) == 1)
        loom = replace(runner(Store(tmp_path)), pool=pool, progress=Unhurried())
        words, _ = loom.run(source, [], [])
        table, _ = loom.run(echo_stage(source), [words.ref], [])
        assert ray.cluster_resources()["CPU"] == 2
        pool.close()
        wait_for(lambda: ray.cluster_resources()["CPU"] == 1)  # nobody asks for places any more
    finally:
        pool.close()
        ray.shutdown()
    assert table.work
    assert table.work.loads == 2
