"""The services of docker-compose.yml, started by hand: what is scheduled, fails, is rerun and dies unseen."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect_api import Api
from scripted_profile import write_profile

ROOT = Path(__file__).parent.parent
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
HEALTHY = "models.generators.g1.options={words: 5}"
FAILING_STAGE = "generate_0_g1"


@dataclass
class Services:
    place: Path
    environment: dict[str, str]
    api: Api
    stack: ExitStack
    ray: str

    def prefect(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def worker(self) -> psutil.Process:
        command = ["prefect", "worker", "start", "--pool", "normloom", "--type", "process"]
        return self.stack.enter_context(running(command, self.place / "worker.log", self.environment))


@contextmanager
def running(command: list[str], log: Path, environment: dict[str, str], **options: Any) -> Iterator[psutil.Process]:
    """A process in a group of its own that is ended, with all it started, at the end."""
    line = command if "/" in command[0] else [sys.executable, "-m", *command]
    with log.open("ab") as output:
        process = subprocess.Popen(
            line, cwd=log.parent, env=environment, stdout=output, stderr=output, start_new_session=True, **options
        )
    below: list[psutil.Process] = []
    try:
        yield psutil.Process(process.pid)
    finally:
        if process.poll() is None:
            below = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for child in below:
            if child.is_running():
                child.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def database(place: Path) -> Iterator[str]:
    """A PostgreSQL server of its own; yields what Prefect connects to."""
    if not POSTGRES:
        pytest.skip("PostgreSQL is not installed in /usr/lib/postgresql")
    options: dict[str, Any] = {}
    if os.getuid() == 0:  # which PostgreSQL refuses to run as
        if "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
            pytest.skip("there is no user postgres to run PostgreSQL as")
        options = {"user": "postgres", "group": "postgres", "extra_groups": []}
    password, port = secrets.token_hex(8), free_port()
    directory = Path(tempfile.mkdtemp(prefix="pg-"))  # not in tmp_path, which only its owner may enter
    try:
        (directory / "password").write_text(password)
        if options:
            shutil.chown(directory, "postgres")
            shutil.chown(directory / "password", "postgres")
        binaries, data = POSTGRES[-1], directory / "data"
        initialise = ["--auth=scram-sha-256", f"--pwfile={directory / 'password'}", "--username=prefect", "--no-sync"]
        subprocess.run(
            [str(binaries / "initdb"), "-D", str(data), *initialise],
            check=True,
            capture_output=True,
            cwd="/",
            **options,
        )
        serve = [str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-k", str(directory), "-F"]
        with running(serve, place / "postgres.log", dict(os.environ), **options):
            yield f"postgresql+asyncpg://prefect:{password}@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    auth, port, ray_port = f"normloom:{secrets.token_hex(8)}", free_port(), free_port()
    url, ray = f"http://127.0.0.1:{port}/api", f"127.0.0.1:{ray_port}"
    with ExitStack() as stack:
        environment = {
            **os.environ,
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "PREFECT_API_URL": url,
            "PREFECT_API_AUTH_STRING": auth,
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "NORMLOOM_RAY": ray,
            "NORMLOOM_STORE": str(tmp_path / "store"),
            "NORMLOOM_PROFILE": str(write_profile(tmp_path / "broken.yaml", actors=1, raise_on="")),
        }
        head = ray_head(stack, ray_port, tmp_path / "ray.log", environment)
        server_only = {
            "PREFECT_API_DATABASE_CONNECTION_URL": stack.enter_context(database(tmp_path)),
            "PREFECT_SERVER_API_AUTH_STRING": auth,
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        }
        start = ["prefect", "server", "start", "--port", str(port)]
        server = stack.enter_context(running(start, tmp_path / "server.log", environment | server_only))
        api = Api(url, alive=lambda: server.is_running() and head.is_running(), password=auth)
        api.until(lambda: answers(port))
        api.until(lambda: api.call("/health"))
        services = Services(tmp_path, environment, api, stack, ray)
        services.prefect("normloom.flows.register")
        services.prefect("normloom.flows.register")
        yield services


def ray_head(stack: ExitStack, port: int, log: Path, environment: dict[str, str]) -> psutil.Process:
    """Start Ray's head node; it gives up by itself where the machine is too busy to start it in 30 s."""
    temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
    start = ["ray.scripts.scripts", "start", "--head", f"--port={port}", "--include-dashboard=false", "--block"]
    start += ["--num-cpus=2", f"--temp-dir={temporary}"]
    for _ in range(5):
        head = stack.enter_context(running(start, log, environment))
        while head.is_running() and head.status() != psutil.STATUS_ZOMBIE:
            if "Ray runtime started" in log.read_text():
                return head
            time.sleep(0.5)
    pytest.fail(f"Ray does not start: {log.read_text()}")


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_what_is_scheduled_fails_is_rerun_alone_and_finished_and_what_died_is_marked(services: Services) -> None:
    api, place = services.api, services.place
    [automation] = api.found("/automations/filter")  # though it was installed twice
    assert automation["enabled"]

    deployment = api.call("/deployments/name/savacu/scheduled")
    assert not any(schedule["active"] for schedule in deployment["schedules"])

    # A run dies together with the worker that started it: nobody is left to tell.
    slow = str(write_profile(place / "slow.yaml", latency_s=900))
    worker = services.worker()
    copied = ("flow_id", "entrypoint", "pull_steps", "work_pool_name", "parameter_openapi_schema", "parameters")
    api.call("/deployments/", {"name": "dies", **{name: deployment[name] for name in copied}})
    dead = api.start("savacu/dies", profile=slow, settings=[], limit=4, store=str(place / "other"))
    api.until(lambda: FAILING_STAGE in api.at_work(dead), run=dead)
    for process in [*worker.children(recursive=True), worker]:
        process.kill()

    # The schedule fires, and the stage whose model raises fails the run.
    services.worker()
    soon = (datetime.now(UTC) + timedelta(seconds=5)).strftime("%Y%m%dT%H%M%SZ")
    rule = f"DTSTART:{soon}\nRRULE:FREQ=SECONDLY;INTERVAL=30;COUNT=10"
    api.call(f"/deployments/{deployment['id']}/schedules", [{"active": True, "schedule": {"rrule": rule}}])
    filters = {"deployments": {"id": {"any_": [deployment["id"]]}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 1}
    [first] = api.until(lambda: api.found("/flow_runs/filter", **filters))
    assert first["auto_scheduled"]
    api.until(lambda: api.run(first["id"])["state"]["type"] != "SCHEDULED")
    api.call(f"/deployments/{deployment['id']}/pause_deployment", {})  # takes back those to come
    assert api.ended(first["id"]) == "FAILED"
    assert FAILING_STAGE in api.run(first["id"])["state"]["message"]
    assert FAILING_STAGE in {task["name"] for task in api.tasks(first["id"]) if task["state"]["type"] == "FAILED"}

    # The failed stage alone, mended; then the whole build, which takes what is there.
    settings = [f"resources.address={services.ray}", HEALTHY]
    alone = api.start("savacu/scheduled", only=[FAILING_STAGE], settings=settings)
    assert api.ended(alone) == "COMPLETED", api.run(alone)["state"]["message"]
    whole = api.start("savacu/scheduled", settings=settings)
    assert api.ended(whole) == "COMPLETED", api.run(whole)["state"]["message"]
    states = {task["name"]: task["state"]["name"] for task in api.tasks(whole)}
    assert states["ingest"] == states["classify"] == states["expand"] == states[FAILING_STAGE] == "Reused"
    assert states["judge_0"] == states["publish"] == "Completed"

    assert api.ended(dead) == "CRASHED"
    assert "no heartbeat" in api.run(dead)["state"]["message"]
