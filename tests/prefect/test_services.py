"""The services of docker-compose.yml, each on a machine of its own: what is scheduled, fails, is rerun, dies unseen."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
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

import pytest
import yaml
from machines import Machines, machines
from prefect_api import Api
from scripted_profile import write_profile
from test_deployments import compose

from normloom.prefect.server import reachable

ROOT = Path(__file__).parents[2]
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
HEALTHY = "models.generators.g1.options={words: 5}"
FAILING_STAGE = "generate_0_g1"
PORT = 4200
LONGEST = 900  # seconds, of which the test takes a quarter: a service that never comes up ends it


@dataclass
class Services:
    """What the compose file starts, by its own commands and environment."""

    place: Path
    machines: Machines
    compose: dict[str, Any]
    environment: dict[str, str]
    stack: ExitStack
    api: Api

    def start(self, name: str, **further: str) -> subprocess.Popen[bytes]:
        """Start a service, and again whenever it fails, as Docker would."""
        own = {"PREFECT_HOME": str(self.place / name / "prefect"), **further}
        environment = self.environment | own | self._written(name)
        return self.stack.enter_context(self.machines.running(name, self._command(name), environment))

    def run(self, name: str, **further: str) -> None:
        """Run a service that ends."""
        process = self.start(name, **further)
        assert process.wait() == 0, (self.place / f"{name}.log").read_text()

    def _command(self, name: str) -> list[str]:
        return [word.replace("$$", "$") for word in self.compose[name]["command"]]

    def _written(self, name: str) -> dict[str, str]:
        return {key: str(value).replace("$$", "$") for key, value in self.compose[name].get("environment", {}).items()}


@contextmanager
def database(stack: ExitStack, apart: Machines, place: Path, password: str) -> Iterator[None]:
    """A PostgreSQL server on the machine `database`."""
    if not POSTGRES:
        pytest.skip("PostgreSQL is not installed in /usr/lib/postgresql")
    if "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip("there is no user postgres to run PostgreSQL as")
    directory = place / "postgres"
    directory.mkdir()
    (directory / "password").write_text(password)
    for path in (directory, directory / "password"):
        shutil.chown(path, "postgres", "postgres")
    binaries, data = POSTGRES[-1], directory / "data"
    initialise = ["--auth=scram-sha-256", f"--pwfile={directory / 'password'}", "--username=prefect", "--no-sync"]
    as_postgres: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []}
    command = [str(binaries / "initdb"), "-D", str(data), *initialise]
    subprocess.run(command, check=True, capture_output=True, cwd="/", **as_postgres)
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all all scram-sha-256\n")
    serve = [str(binaries / "postgres"), "-D", str(data), "-h", "0.0.0.0", "-k", str(directory), "-F"]
    named = [str(binaries / "psql"), "-h", str(directory), "-U", "prefect", "postgres", "-c", "CREATE DATABASE prefect"]
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    stack.enter_context(apart.running("database", [*user, *serve], dict(os.environ)))
    while subprocess.run(named, env=os.environ | {"PGPASSWORD": password}, check=False, capture_output=True).returncode:
        assert (directory / "data").exists()
    yield


@pytest.fixture
def services() -> Iterator[Services]:
    place = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="services-"))
    place.chmod(0o755)
    keys = {"POSTGRES_PASSWORD": secrets.token_hex(8), "PREFECT_AUTH": f"me:{secrets.token_hex(8)}"}
    keys["RAY_TOKEN"] = secrets.token_hex(32)
    profile = write_profile(place / "broken.yaml", actors=1, raise_on="")
    done = compose("config", **keys, NORMLOOM_PROFILE=str(profile))
    assert done.returncode == 0, done.stderr
    written = yaml.safe_load(done.stdout)["services"]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "NORMLOOM_STORE": str(place / "store"),
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "GRPC_DNS_RESOLVER": "native",  # names are in /etc/hosts; Ray's own resolver asks a name server alone
    }
    try:
        with ExitStack() as stack:
            apart = stack.enter_context(machines(list(written), place))
            url = f"http://{apart.addresses['server']}:{PORT}/api"
            server: list[subprocess.Popen[bytes]] = []
            deadline = time.monotonic() + LONGEST
            api = Api(
                url,
                alive=lambda: time.monotonic() < deadline and all(one.poll() is None for one in server),
                password=keys["PREFECT_AUTH"],
            )
            services = Services(place, apart, written, environment, stack, api)
            stack.enter_context(database(stack, apart, place, keys["POSTGRES_PASSWORD"]))
            server.append(services.start("server"))
            services.start("ray-head")
            services.start("ray-worker")
            api.until(lambda: reachable(url))
            services.run("setup")
            services.run("setup")
            yield services
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_what_is_scheduled_fails_is_rerun_alone_and_finished_and_what_died_is_marked(services: Services) -> None:
    api, place = services.api, services.place
    [automation] = api.found("/automations/filter")  # though it was installed twice
    assert automation["enabled"]

    deployment = api.call("/deployments/name/savacu/scheduled")
    assert not any(schedule["active"] for schedule in deployment["schedules"])

    # A run dies together with the worker that started it: nobody is left to tell.
    slow = str(write_profile(place / "slow.yaml", latency_s=900))
    worker = services.start("worker")
    copied = ("flow_id", "entrypoint", "pull_steps", "work_pool_name", "parameter_openapi_schema", "parameters")
    api.call("/deployments/", {"name": "dies", **{name: deployment[name] for name in copied}})
    dead = api.start("savacu/dies", profile=slow, settings=[], limit=4, store=str(place / "other"))
    api.until(lambda: FAILING_STAGE in api.at_work(dead), run=dead)
    worker.kill()

    # The schedule fires, and the stage whose model raises fails the run.
    services.start("worker")
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
    settings = ["resources.address=ray-head:6379", HEALTHY]
    alone = api.start("savacu/scheduled", only=[FAILING_STAGE], settings=settings)
    assert api.ended(alone) == "COMPLETED", api.run(alone)["state"]["message"]
    whole = api.start("savacu/scheduled", settings=settings)
    assert api.ended(whole) == "COMPLETED", api.run(whole)["state"]["message"]
    states = {task["name"]: task["state"]["name"] for task in api.tasks(whole)}
    assert states["ingest"] == states["classify"] == states["expand"] == states[FAILING_STAGE] == "Reused"
    assert states["judge_0"] == states["publish"] == "Completed"

    assert api.ended(dead) == "CRASHED"
    assert "no heartbeat" in api.run(dead)["state"]["message"]
