"""docs/deploying.md followed step by step, a machine for each service, and what the team then lives through."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from machines import Machines, machines
from prefect_api import Api
from scripted_profile import write_profile
from test_deployments import COMPOSE, compose

from normloom.prefect.server import reachable
from normloom.store.store import Store

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "deploying.md"
INSTALLED, SHARED = Path("/opt/normloom"), Path("/srv/normloom")  # as the page has them
PROFILE = SHARED / "profile.yaml"
KEYS = ("HF_TOKEN", "OPENAI_API_KEY")
NAMES = ("database", "server", "ray-head", "worker", "gpu-1", "gpu-2", "gpu-3")
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
HEALTHY = "models.generators.g1.options={words: 5}"
ADDRESS = "resources.address=ray-head:6379"
[DEFAULT] = re.findall(r"NORMLOOM_PROFILE:-(\w+)", COMPOSE.read_text())
FAILING_STAGE, SLOW_STAGE = "generate_0_g1", "score_0"
PORT = 4200
OUTAGE_SECONDS = 30  # at most: others of its stages end; a run whose heart is not heard for 90 counts as dead
LONGEST = 900  # seconds that a test may wait, of which it needs a tenth: a service that never comes up ends it
WITH_SETTINGS = f"set -a; . {SHARED}/settings; set +a; {{}}"

# What one test did to the machines a second try would find done: it would hide why the first one failed.
pytestmark = [pytest.mark.timeout(2 * LONGEST), pytest.mark.flaky(reruns=0)]


@dataclass(frozen=True)
class Step:
    """A block of commands in the page: the machines that it is for, and whether it is to run for good."""

    machines: tuple[str, ...]
    service: bool
    commands: str


def steps() -> list[Step]:
    """Return the blocks of the section on three machines, without the one that installs."""
    section = PAGE.read_text().partition("## Three machines with GPUs")[2].partition("\n## ")[0]
    before, _, after = section.partition("### 2. Install")
    blocks = re.findall(r"^```bash\n(.*?)^```", before + after.partition("### 3.")[2], re.MULTILINE | re.DOTALL)
    found = []
    for block in blocks:
        head, _, commands = block.partition("\n")
        names, _, kind = head.removeprefix("# on ").partition(", as a ")
        found.append(Step(tuple(re.split(r", | and ", names)), kind == "service", commands.strip()))
    return found


@dataclass
class Team:
    """The machines, as far as the page has been followed."""

    place: Path
    machines: Machines
    environment: dict[str, str]
    url: str
    services: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def shared(self) -> Path:
        return self.place / "shared"

    @property
    def api(self) -> Api:
        """Prefect's server; it may be asked, and waited for, for a while from now."""
        password, deadline = self.settings.get("PREFECT_API_AUTH_STRING"), time.monotonic() + LONGEST
        return Api(self.url, alive=lambda: time.monotonic() < deadline, password=password, outages=True)

    def start(self, name: str, *, settings: bool = True) -> None:
        """Start the service of a machine, and again whenever it ends, as systemd would."""
        command = f"exec {self.services[name]}"
        shell = ["bash", "-c", WITH_SETTINGS.format(command) if settings else command]
        self.machines.start(name, shell, self.environment)

    def run(self, name: str, commands: str, *, settings: bool = True) -> None:
        """Run commands on a machine to their end."""
        shell = ["bash", "-ec", WITH_SETTINGS.format(commands) if settings else commands]
        self.machines.run(name, shell, self.environment)

    def until(self, done: Callable[[], bool], *, run: str) -> None:
        """Wait until something is true, which does not come any more if the run ends otherwise than completed."""
        while not done():
            state = self.api.run(run)["state"]
            assert state["type"] in {"SCHEDULED", "PENDING", "RUNNING", "COMPLETED"}, state["message"]
            time.sleep(0.5)


def start_database(team: Team, password: str) -> None:
    """Start PostgreSQL on the machine `database`, with an empty database."""
    if not POSTGRES:
        pytest.skip("PostgreSQL is not installed in /usr/lib/postgresql")
    if "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip("there is no user postgres to run PostgreSQL as")
    directory = team.place / "postgres"
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
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    team.services["database"] = " ".join([*user, *serve])
    team.start("database", settings=False)
    named = [str(binaries / "psql"), "-h", str(directory), "-U", "prefect", "postgres", "-c", "CREATE DATABASE prefect"]
    create, api = [*named], team.api
    while subprocess.run(
        create, env=os.environ | {"PGPASSWORD": password}, check=False, capture_output=True
    ).returncode:
        assert api.alive()


@pytest.fixture(scope="module")
def bare() -> Iterator[Team]:
    """Machines on which nothing runs yet."""
    place = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="services-"))
    place.chmod(0o755)
    (place / "shared").mkdir()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "NORMLOOM_CACHE": os.environ.get("NORMLOOM_CACHE") or str(Path.home() / ".cache" / "normloom"),
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "GRPC_DNS_RESOLVER": "native",  # names are in /etc/hosts; Ray's own resolver asks a name server alone
    }
    try:
        with machines(NAMES, place, {INSTALLED: ROOT, SHARED: place / "shared"}) as apart:
            url = f"http://{apart.addresses['server']}:{PORT}/api"
            yield Team(place, apart, environment, url)
    finally:
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def team(bare: Team) -> Team:
    """The page followed to its end, which starts a first build; the model of one stage of it raises."""
    team, secret = bare, {name: secrets.token_hex(12) for name in ("PASSWORD", *KEYS)}
    start_database(team, secret["PASSWORD"])
    write, *rest = steps()
    [machine] = write.machines
    team.run(machine, write.commands, settings=False)
    file = team.shared / "settings"
    assert file.stat().st_mode & 0o777 == 0o600
    lines = file.read_text().replace("PASSWORD", secret["PASSWORD"]).replace("PROFILE=gpu", f"PROFILE={PROFILE}")
    file.write_text(lines + "".join(f"{name}={secret[name]}\n" for name in KEYS))
    profile = yaml.safe_load(write_profile(team.shared / PROFILE.name, actors=2, raise_on="").read_text())
    profile["resources"] |= {"max_actors": 3, "gpus": 1}
    profile["systems"]["savacu"]["judge"] = {"part_rows": 1}
    profile["systems"]["savacu"]["models"]["judge"]["options"] = {"latency_s": 2}
    (team.shared / PROFILE.name).write_text(yaml.safe_dump(profile))
    team.settings = dict(line.split("=", 1) for line in file.read_text().splitlines())
    for step in rest:
        for name in step.machines:
            if step.service:
                team.services[name] = step.commands
                team.start(name)
            else:
                team.api.until(lambda: reachable(team.url))
                team.run(name, step.commands)
    return team


@pytest.fixture(scope="module")
def dead(team: Team, first: str) -> str:
    """A run that died together with the worker that started it: nobody is left to tell."""
    api = team.api
    assert api.ended(first)
    api.call(
        "/work_pools/normloom", {"concurrency_limit": 2}, method="PATCH"
    )  # the dead one keeps its place for a while
    deployment = api.call("/deployments/name/savacu/scheduled")
    copied = ("flow_id", "entrypoint", "pull_steps", "work_pool_name", "parameter_openapi_schema", "parameters")
    api.call("/deployments/", {"name": "dies", **{name: deployment[name] for name in copied}})
    slow = write_profile(team.shared / "slow.yaml", latency_s=900)
    dead = api.start("savacu/dies", profile=str(SHARED / slow.name), settings=[], limit=4, store=str(SHARED / "other"))
    api.until(lambda: FAILING_STAGE in api.at_work(dead), run=dead)
    team.machines.kill("worker")
    team.start("worker")
    return dead


@pytest.fixture(scope="module")
def first(team: Team) -> str:
    """The run that the page starts."""
    run = runs_of(team, "savacu/scheduled")[0]
    return str(run["id"])


def runs_of(team: Team, deployment: str) -> list[dict[str, Any]]:
    identity = team.api.call(f"/deployments/name/{deployment}")["id"]
    return team.api.found(
        "/flow_runs/filter", deployments={"id": {"any_": [identity]}}, sort="EXPECTED_START_TIME_ASC", limit=9
    )


def test_a_stage_that_fails_is_rerun_alone(team: Team, first: str, dead: str) -> None:
    api = team.api
    assert dead
    assert api.ended(first) == "FAILED"
    assert FAILING_STAGE in api.run(first)["state"]["message"]
    assert FAILING_STAGE in {task["name"] for task in api.tasks(first) if task["state"]["type"] == "FAILED"}
    alone = api.start("savacu/scheduled", limit=8, only=[FAILING_STAGE], settings=[ADDRESS, HEALTHY])
    assert api.ended(alone) == "COMPLETED", api.run(alone)["state"]["message"]


def test_a_build_outlives_a_node_the_database_and_restarts_and_redoes_nothing(team: Team) -> None:
    api, store = team.api, team.shared / "store" / "savacu"
    run = api.start("savacu/scheduled", limit=8, settings=[ADDRESS, HEALTHY])

    def finished() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in store.glob(f"{SLOW_STAGE}/*/part-*.json")}

    def after(parts: int) -> dict[Path, int]:
        wanted = len(finished()) + parts
        team.until(lambda: len(finished()) >= wanted, run=run)
        return finished()

    kept = after(3)
    team.machines.kill("gpu-2")
    kept |= after(3)
    assert all(team.settings[key] in str(actors_environments(team)) for key in KEYS)
    team.machines.restart("worker")
    kept |= after(3)
    team.machines.restart("server")
    kept |= after(3)
    team.machines.kill("database")
    outage = time.monotonic() + OUTAGE_SECONDS  # what the build has to tell the server waits meanwhile
    while time.monotonic() < outage and Store(store.parent).current("savacu", "publish") is None:
        time.sleep(0.5)
    team.start("database", settings=False)
    assert api.ended(run) == "COMPLETED", api.run(run)["state"]["message"]
    assert api.run(run)["run_count"] == 2
    published = Store(store.parent).current("savacu", "publish")
    assert published
    assert published.build == api.run(run)["name"]
    final = finished()
    assert {path: final[path] for path in kept} == kept
    assert len(final) == 24


def actors_environments(team: Team) -> list[dict[str, str]]:
    """Return the environments of the actors on the nodes that are left."""
    family = [process for name in ("gpu-1", "gpu-3") for process in team.machines.processes(name)]
    return [one.environ() for one in family if one.name().startswith("ray::ModelActor")]


def test_a_scheduled_build_with_the_default_profile_completes(team: Team) -> None:
    api = team.api
    deployment = api.call("/deployments/name/savacu/scheduled")
    assert not any(schedule["active"] for schedule in deployment["schedules"])
    soon = (datetime.now(UTC) + timedelta(seconds=3)).strftime("%Y%m%dT%H%M%SZ")
    rule = f"DTSTART:{soon}\nRRULE:FREQ=SECONDLY;INTERVAL=30;COUNT=10"
    small = [ADDRESS, "resources.actors=1", "rounds=0", "expand.minimum=0"]
    small += ["generate.candidates=1", "generate.sampling.max_tokens=16"]
    small.append("release.min_rows=0")  # the smallest model may not answer one prompt well enough
    parameters = {"profile": DEFAULT, "limit": 1, "settings": small, "store": str(SHARED / "small")}
    known = {run["id"] for run in runs_of(team, "savacu/scheduled")}
    schedule = {"active": True, "schedule": {"rrule": rule}, "parameters": parameters}
    [made] = api.call(f"/deployments/{deployment['id']}/schedules", [schedule])
    try:
        [run, *_] = api.until(lambda: [run for run in runs_of(team, "savacu/scheduled") if run["id"] not in known])
        assert run["auto_scheduled"]
        api.until(lambda: api.run(run["id"])["state"]["type"] != "SCHEDULED")
    finally:  # takes back those to come
        api.call(f"/deployments/{deployment['id']}/schedules/{made['id']}", method="DELETE")
    assert api.ended(run["id"]) == "COMPLETED", api.run(run["id"])["state"]["message"]


def test_a_run_that_died_unseen_is_marked(team: Team, dead: str) -> None:
    [automation] = team.api.found("/automations/filter")
    assert automation["enabled"]
    assert team.api.ended(dead) == "CRASHED"
    assert "no heartbeat" in team.api.run(dead)["state"]["message"]


def test_no_key_is_in_a_log_or_a_table(team: Team) -> None:
    values = [team.settings[key].encode() for key in KEYS]
    places = [team.place, *(team.machines.root(name) / "tmp" / "ray" for name in ("worker", "gpu-1", "gpu-3"))]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    files.remove(team.shared / "settings")
    assert [path for path in files if any(value in path.read_bytes() for value in values)] == []


def test_the_compose_file_starts_the_same_services_with_the_same_settings() -> None:
    write, *rest = steps()
    settings = dict(re.findall(r"^(\w+)=(.*)$", write.commands.partition("<<END")[2], re.MULTILINE))
    done = compose(
        "config",
        POSTGRES_PASSWORD="PASSWORD",
        PREFECT_AUTH="$login",
        RAY_TOKEN=settings["RAY_AUTH_TOKEN"],
        NORMLOOM_PROFILE=settings["NORMLOOM_PROFILE"],
    )
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout.replace("$$", "$"))["services"]
    del services["database"]
    commands = {name: " ".join(service["command"]) for name, service in services.items()}
    machine = {"ray-worker": "gpu-1"}
    told = {name: step.commands.replace(" --num-gpus=1", "") for step in rest if step.service for name in step.machines}
    assert {name: told.get(machine.get(name, name)) for name in commands} | {"setup": commands["setup"]} == commands
    assert commands["setup"] in [step.commands for step in rest if not step.service]
    for name, service in services.items():
        assert service["environment"].items() <= settings.items(), name
