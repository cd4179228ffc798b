"""What Prefect's server knows of builds that end in each way, and what a build does without its server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect_api import Api
from prefect_home import Prefect, prefect_home
from scripted_profile import write_profile

from normloom.history.unfinished import unfinished
from normloom.prefect.flow_run import _is_made_up
from normloom.prefect.run_marks import REMEDY, RUNS, RunMark, _state, settle
from normloom.prefect.server import prefect_server, using_server
from normloom.store.store import Store

SLOW = "generate_0_g1"


@dataclass(frozen=True)
class Building:
    """`normloom build` at work at its slow stage."""

    process: subprocess.Popen[bytes]
    store: Path
    run: str


_started: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    """A test that fails leaves no build behind."""
    yield
    while _started:
        process = _started.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def start(place: Path, *, latency: float = 900) -> subprocess.Popen[bytes]:
    place.mkdir()
    profile = write_profile(place / "slow.yaml", latency_s=latency)
    arguments = ["--profile", str(profile), "--limit", "4", "--store", str(place / "store"), "--json"]
    with (place / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "normloom", "build", "savacu", *arguments],
            env=dict(os.environ),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
    _started.append(process)
    return process


def at_work(process: subprocess.Popen[bytes], place: Path, url: str) -> Building:
    api = Api(url, alive=lambda: process.poll() is None)

    def found() -> list[dict[str, Any]]:
        runs = api.found("/flow_runs/filter", sort="EXPECTED_START_TIME_DESC")
        return [run for run in runs if str(place / "store") in str(run["parameters"])]

    [run] = api.until(found)
    api.until(lambda: SLOW in api.at_work(run["id"]))
    return Building(process, place / "store", run["id"])


def test_a_run_has_its_end_however_its_build_ended(shared_prefect: Prefect, tmp_path: Path) -> None:
    ways = {"ctrl-c": signal.SIGINT, "sigterm": signal.SIGTERM, "kill": signal.SIGKILL, "cancelled": signal.SIGKILL}
    with shared_prefect.used() as url:
        api = Api(url, alive=lambda: True)
        places = {way: tmp_path / way for way in ways}
        started = {way: start(place) for way, place in places.items()}
        builds = {way: at_work(process, places[way], url) for way, process in started.items()}
        assert [settle(build.store) for build in builds.values()] == [0, 0, 0, 0]  # all are at work
        for way, number in ways.items():
            builds[way].process.send_signal(number)
        codes = {way: build.process.wait(timeout=60) for way, build in builds.items()}
        assert codes == {"ctrl-c": 130, "sigterm": 143, "kill": -9, "cancelled": -9}

        def state(way: str) -> tuple[str, str]:
            found = api.run(builds[way].run)["state"]
            return found["type"], found["message"]

        kept = "finished parts are kept, build again to resume"
        assert state("ctrl-c") == ("CRASHED", f"interrupted by SIGINT; {kept}")
        assert state("sigterm") == ("CRASHED", f"interrupted by SIGTERM; {kept}")
        assert state("kill")[0] == "RUNNING"
        api.cancel(builds["cancelled"].run)
        assert state("cancelled")[0] == "CANCELLING"
        assert [settle(builds[way].store) for way in ways] == [0, 0, 1, 1]
        assert state("kill") == (
            "CRASHED",
            f"process {builds['kill'].process.pid} on {os.uname().nodename} ended abruptly, as if killed; {kept}",
        )
        assert state("cancelled") == ("CANCELLED", f"cancelled; {kept}")
        assert [settle(builds[way].store) for way in ways] == [0, 0, 0, 0]
        for build in builds.values():
            assert not api.at_work(build.run)
            assert not list((build.store / RUNS).iterdir())


def test_a_build_goes_on_without_its_server_and_the_next_one_hears_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(prefect_home(tmp_path / "home")))
    with prefect_server() as url, using_server(url):
        build = at_work(start(tmp_path / "lone", latency=2), tmp_path / "lone", url)
        servers = [one for one in psutil.Process().children() if "normloom.prefect.server" in one.cmdline()]
        server = max(servers, key=psutil.Process.create_time)  # besides the one that tests share
        server.kill()
        assert build.process.wait(timeout=120) == 0
    said = (tmp_path / "lone" / "said").read_text()
    assert said.count("Prefect's server does not answer") == 1
    assert "Error" not in said
    assert "publish: published 4 rows" in said
    assert not unfinished(Store(build.store), "savacu")
    with prefect_server() as url, using_server(url):
        api = Api(url, alive=lambda: True)
        assert api.run(build.run)["state"]["type"] == "RUNNING"
        assert settle(build.store) == 1
        state = api.run(build.run)["state"]
        assert (state["type"], state["message"]) == ("COMPLETED", "16 of 16 tables made, 0 reused")


def test_a_server_that_was_never_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    process = start(tmp_path / "store")
    assert process.wait(timeout=120) == 1
    said = (tmp_path / "store" / "said").read_text()
    assert "Prefect's server did not accept the run" in said
    assert "PREFECT_API_URL" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("name", "made_up"),
    [
        ("garrulous-otter", True),
        ("20261127T081906-a451", True),
        ("nightly rebuild", False),
        ("release-candidate", False),
        ("otter", False),
        ("", False),
    ],
)
def test_a_name_that_a_person_typed_is_told_from_one_made_up(name: str, made_up: bool) -> None:
    assert _is_made_up(name) == made_up


@pytest.mark.parametrize(
    ("outcome", "name", "message"),
    [
        ("completed", "Completed", "said"),
        ("failed", "Failed", "said"),
        ("interrupted", "Crashed", f"said; {REMEDY}"),
        (None, "Crashed", f"process 7 on here ended abruptly, as if killed; {REMEDY}"),
    ],
)
def test_the_state_of_a_run_tells_what_became_of_it(outcome: Any, name: str, message: str) -> None:
    mark = RunMark(run=UUID(int=1), state=UUID(int=2), process=7, host="here", outcome=outcome, message="said")
    state = _state(FlowRun(flow_id=UUID(int=3)), mark)
    assert (state.name, state.message) == (name, message)
