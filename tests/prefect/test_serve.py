from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.settings import PREFECT_RUNNER_POLL_FREQUENCY, temporary_settings
from prefect_api import Api
from prefect_home import prefect_home
from scripted_profile import write_profile
from users_folder import users_folder

from normloom.cli.commands.running.serve import _query_seconds, require_login, serve
from normloom.core.errors import ConfigError, UsageError
from normloom.labelling.queue import open_queue
from normloom.prefect.names import SERVER_PASSWORD
from normloom.prefect.run_marks import RUNS
from normloom.prefect.server import serving
from normloom.store.latest import released_key
from normloom.store.layout import MANIFEST
from normloom.store.store import Store

BACKGROUND = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]  # as a script starts what it does not wait for
SERVE = "import sys, typer; from normloom.cli.commands.running.serve import serve; typer.run(serve)"


@pytest.fixture(autouse=True)
def _no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SERVER_PASSWORD, raising=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_needs_no_password(host: str) -> None:
    require_login(host, open_to_all=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "build.example.org"])
def test_an_address_that_others_reach_needs_one(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=f"{SERVER_PASSWORD}=user:password"):
        serve(host=host)
    require_login(host, open_to_all=True)
    monkeypatch.setenv(SERVER_PASSWORD, "me:secret")
    require_login(host, open_to_all=False)


def test_wrong_settings_stop_it_before_a_server_is_started(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(ConfigError, match="unknown system 'savaku'"):
        serve(["savaku"], store=store)
    with pytest.raises(ConfigError, match="unknown profile 'lokal'"):
        serve(profile="lokal", store=store)
    with pytest.raises(UsageError, match=r"--schedule.*0 2 x"):
        serve(schedule="0 2 x * *", timezone="UTC", store=store)
    with pytest.raises(UsageError, match="Mars"):
        serve(schedule="0 2 * * *", timezone="Mars", store=store)
    assert not store.exists()


def test_it_asks_for_runs_every_other_second_unless_prefect_is_told_how_often() -> None:
    assert _query_seconds() == 2
    with temporary_settings({PREFECT_RUNNER_POLL_FREQUENCY: 10}):
        assert _query_seconds() == 10


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port}"):
            serve(port=port, store=tmp_path)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[bytes], Path, Api]]:
    """`normloom serve` at work, as a terminal would run it: a process group of its own."""
    place = users_folder(tmp_path_factory.mktemp("serve"))
    quick = write_profile(place / "quick.yaml")
    write_profile(place / "slow.yaml", actors=1, latency_s=900)
    write_profile(place / "inline.yaml", latency_s=901)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["--port", port, "--store", place / "store", "--profile", quick, "--limit", 12]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [*BACKGROUND, sys.executable, "-c", SERVE, *map(str, arguments), "--schedule", "0 2 * * *", "--paused"],
            cwd=place,
            env={**os.environ, "PREFECT_HOME": str(prefect_home(place / "prefect"))},
            start_new_session=True,
            stdout=log,
            stderr=log,
        )
    try:
        api = Api(f"http://127.0.0.1:{port}/api", alive=lambda: process.poll() is None)
        api.until(lambda: serving(place / "store"))
        api.until(lambda: len(api.found("/deployments/filter")) >= len(FITTING))
        yield process, place, api
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


FITTING = [
    "alignx",
    "conllm",
    "cross_align",
    "missing_modality",
    "persopilot",
    "savacu",
]  # systems whose settings the profile fits: all but the last have models of their own
Served = tuple[subprocess.Popen[bytes], Path, Api]
Asking = tuple[subprocess.Popen[str], Store, Api]


def test_a_served_system_can_be_started_with_the_parameters_of_a_build(served: Served) -> None:
    _, place, api = served
    deployment = api.call("/deployments/name/savacu/serve")
    assert deployment["parameters"]["profile"] == str(place / "quick.yaml")
    assert deployment["parameters"]["limit"] == 12
    assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert [schedule["active"] for schedule in deployment["schedules"]] == [False]
    assert {"only", "from_stage", "force", "settings", "store"} <= set(
        deployment["parameter_openapi_schema"]["properties"]
    )
    assert [each["name"] for each in api.found("/automations/filter")] == ["normloom-crash-silent-runs"]
    entrypoints = [each["entrypoint"].rpartition(".")[2] for each in api.found("/deployments/filter")]
    assert sorted(entrypoints) == FITTING
    assert "misaligntrade is not served: setting models" in (place / "log").read_text()


def test_a_cancelled_run_frees_its_actors_and_keeps_its_tables(served: Served) -> None:
    process, place, api = served
    run = api.start("savacu/serve", profile=str(place / "slow.yaml"))
    api.until(lambda: "generate_0_g1" in api.at_work(run), run=run)
    api.until(lambda: any("ModelActor.run" in name for name in commands(process)), run=run)
    api.cancel(run)
    assert api.ended(run) == "CANCELLED"
    assert not any("ModelActor" in name for name in commands(process))
    again = api.start("savacu/serve")
    assert api.ended(again) == "COMPLETED"
    states = {task["name"]: task["state"]["name"] for task in api.tasks(again)}
    assert states["ingest"] == states["classify"] == states["expand"] == "Reused"
    assert states["publish"] == "Completed"


def test_a_killed_run_is_crashed_and_its_slot_is_free(served: Served) -> None:
    _, place, api = served
    run = api.start("savacu/serve", profile=str(place / "inline.yaml"))
    api.until(lambda: "generate_0_g1" in api.at_work(run), run=run)
    [mark] = (place / "store" / RUNS).glob(f"{run}.*.json")
    at_work = psutil.Process(json.loads(mark.read_text())["process"])
    parent = at_work.parent()
    assert parent
    assert "normloom.prefect.warm.forks" in parent.cmdline()
    at_work.kill()
    assert api.ended(run) == "CRASHED"
    deployment = api.call("/deployments/name/savacu/serve")["id"]
    assert api.call(f"/v2/concurrency_limits/deployment:{deployment}")["active_slots"] == 0


def test_a_run_keeps_a_name_that_was_typed_and_says_that_it_made_nothing(served: Served) -> None:
    _, _, api = served
    deployment = api.call("/deployments/name/savacu/serve")["id"]
    run = api.call(f"/deployments/{deployment}/create_flow_run", {"name": "release candidate"})["id"]
    assert api.ended(run) == "COMPLETED"
    ended = api.run(run)
    assert ended["name"] == "release candidate"
    assert any(tag.startswith("build:") for tag in ended["tags"])
    assert ended["state"]["name"] == "Reused"
    assert re.fullmatch(r"0 of (\d+) tables made, \1 reused", ended["state"]["message"])


def test_a_run_makes_stages_again_if_fresh_and_not_unasked_beyond_the_limit(served: Served) -> None:
    _, place, api = served
    store = Store(place / "store")
    ended(api, only=["ingest"])
    first = store.current("savacu", "ingest")
    assert first is not None
    assert ended(api, only=["ingest"], fresh=True)["state"]["type"] == "COMPLETED"
    second = store.current("savacu", "ingest")
    assert second is not None
    assert (second.remake, second.content) == (first.remake + 1, first.content)
    manifest = store.table_directory(second.ref) / MANIFEST
    written = manifest.read_text()
    manifest.write_text(written.replace('"rows_in"', '"rows_inn"'))
    (store.table_directory(first.ref) / MANIFEST).unlink()
    refused = ended(api, only=["ingest"], settings=["remake.max_stages=0"])["state"]
    assert refused["type"] == "FAILED"
    assert "rebuild 1 stage that no setting or input changed" in refused["message"]
    assert "ingest (cannot be read)" in refused["message"]
    assert ended(api, only=["ingest"])["state"]["type"] == "COMPLETED"
    assert store.current("savacu", "ingest")


def ended(api: Api, **parameters: object) -> Any:
    """Return a run of the deployment that has ended."""
    run = api.start("savacu/serve", **parameters)
    api.ended(run)
    return api.run(run)


def test_an_error_of_ours_fails_the_run_with_its_message(served: Served) -> None:
    _, _, api = served
    run = api.start("savacu/serve", only=["no_such_stage"])
    assert api.ended(run) == "FAILED"
    assert "unknown stage 'no_such_stage'" in api.run(run)["state"]["message"]


def test_sigterm_ends_the_server_and_the_builds(served: Served) -> None:
    process, place, api = served
    run = api.start("savacu/serve", profile=str(place / "slow.yaml"))
    api.until(lambda: any("ModelActor.run" in name for name in commands(process)), run=run)
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert (place / "log").read_text().endswith("stopped; finished parts are kept\n")
    ours = [child for child in below if "ray::" not in " ".join(command(child)) or "ModelActor" in command(child)]
    psutil.wait_procs(ours, timeout=60)
    assert not [child for child in ours if child.is_running()]
    assert serving(place / "store") is None


def commands(process: subprocess.Popen[bytes]) -> list[str]:
    return [" ".join(command(child)) for child in psutil.Process(process.pid).children(recursive=True)]


def command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


ASKS = """
import normloom as nl

def flow():
    rows = nl.table([{"text": "a"}, {"text": "b"}])
    return nl.ask(rows, nl.labels("tone", {"polite": ["yes", "no"]}), show=["text"])
"""
OFTEN = "import normloom.prefect.notifications.watch as w, normloom.cli.app as app; w.SECONDS = 1; app.main()"


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], Store, Api]]:
    """`normloom serve` of a flow that asks people; it looks for answers every second, not every minute."""
    place = tmp_path_factory.mktemp("asking")
    (place / "asks.py").write_text(ASKS)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*BACKGROUND, sys.executable, "-c", OFTEN, "serve", "asks.py", "--port", str(port), "--store", "kept"],
        cwd=place,
        env={**os.environ, "PREFECT_HOME": str(prefect_home(place / "prefect"))},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        api = Api(f"http://127.0.0.1:{port}/api", alive=lambda: process.poll() is None)
        api.until(lambda: serving(place / "kept"))
        api.until(lambda: api.found("/deployments/filter"))
        yield process, Store(place / "kept"), api
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_build_that_waits_for_answers_is_finished_without_being_started(asking: Asking) -> None:
    _, store, api = asking
    run = api.start("asks/serve")
    assert api.ended(run) == "COMPLETED"
    state = api.run(run)["state"]
    assert (state["name"], "2 rows wait for answers: normloom label tone" in state["message"]) == ("Waiting", True)
    assert released_key(store, "asks") is None
    queue = open_queue(store, "tone")
    for row in queue.next("ada", 2):
        queue.record(row, {"polite": "yes"}, "ada")
    api.until(lambda: released_key(store, "asks"))
    runs = [one["id"] for one in api.found("/flow_runs/filter")]
    assert len(runs) == 2
    [again] = set(runs) - {run}
    assert api.ended(again) == "COMPLETED"
    assert api.run(again)["state"]["name"] == "Completed"
    table = store.current("asks", "answered_tone")
    assert table
    assert store.scan(table.ref).collect()["polite"].to_list() == ["yes", "yes"]


def test_a_run_has_the_code_that_is_in_the_file_today(asking: Asking) -> None:
    _, store, api = asking
    file = store.root.parent / "asks.py"
    file.write_text(ASKS.replace('{"text": "b"}', '{"text": "b"}, {"text": "c"}'))
    run = api.start("asks/serve")
    assert api.ended(run) == "COMPLETED"
    assert "1 row waits for answers" in api.run(run)["state"]["message"]


def test_it_does_not_outlive_its_server(asking: Asking) -> None:
    """Without a server there are no schedules: whoever watches the process must learn of it."""
    process, _, _ = asking
    [server] = [
        child for child in psutil.Process(process.pid).children() if "normloom.prefect.server" in child.cmdline()
    ]
    server.kill()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Prefect's server ended unexpectedly" in said
