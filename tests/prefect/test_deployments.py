from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.states import Cancelled, Crashed, Failed

from normloom.core.errors import WaitingError
from normloom.models.registry import engine_of
from normloom.prefect.flow_run import Account, waiting
from normloom.prefect.names import HEARTBEAT_SECONDS
from normloom.prefect.serving.automations import AUTOMATIONS
from normloom.settings.config import load_profile, profile_names, validated
from normloom.settings.systems import systems
from normloom.steps.graph import model_uses, stages_of

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
SECRETS = ("POSTGRES_PASSWORD", "PREFECT_AUTH", "RAY_TOKEN")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def compose(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed")
    empty = ROOT / "deployments" / "__init__.py"  # instead of a .env that may lie beside the file
    bare = {name: value for name, value in os.environ.items() if name not in SECRETS}
    return subprocess.run(
        [program, "--env-file", str(empty), "-f", str(COMPOSE), *arguments],
        env=bare | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(autouse=True)
def endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the profile `hosted` needs."""
    monkeypatch.setenv("NORMLOOM_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("NORMLOOM_MODEL", "toy")


@pytest.mark.parametrize("system", systems())
@pytest.mark.parametrize("profile", [name for name in profile_names() if name != "replay"])  # which has no models
def test_every_profile_has_valid_settings_for_every_system(profile: str, system: str) -> None:
    config, resources = validated(systems()[system].config, load_profile(profile, system))
    assert systems()[system].flow(config)
    assert resources.actors >= 1


def test_compose_accepts_its_file_when_the_secrets_are_set() -> None:
    done = compose("config", **dict.fromkeys(SECRETS, "given"))
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == {"database", "server", "setup", "worker", "ray-head", "ray-worker"}
    assert services["worker"]["environment"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == HEARTBEAT_SECONDS


@pytest.mark.parametrize("secret", SECRETS)
def test_compose_refuses_to_start_without_a_secret_and_says_which(secret: str) -> None:
    done = compose("config", **dict.fromkeys(set(SECRETS) - {secret}, "given"))
    assert done.returncode != 0
    assert f"set {secret}" in done.stderr


def test_no_secret_is_written_down() -> None:
    given = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert given == dict.fromkeys(SECRETS, "")
    for match in re.finditer(r"^ +\w*(PASSWORD|AUTH_STRING|TOKEN): (\S+)", COMPOSE.read_text(), re.MULTILINE):
        assert match[2].startswith("${"), match[0]


def test_only_the_ui_is_published_and_only_on_this_machine() -> None:
    done = compose("config", **dict.fromkeys(SECRETS, "given"))
    published = {
        name: service["ports"]
        for name, service in yaml.safe_load(done.stdout)["services"].items()
        if "ports" in service
    }
    assert published == {"server": ["127.0.0.1:4200:4200/tcp"]}


def test_keys_reach_who_reads_sources_or_asks_models_and_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "keys.env").write_text("HF_TOKEN=one\nMY_OWN_KEY=two\n")
    done = compose("config", **dict.fromkeys(SECRETS, "given"), NORMLOOM_KEYS=str(tmp_path / "keys.env"))
    services = yaml.safe_load(done.stdout)["services"].items()
    keys = {"HF_TOKEN": "one", "MY_OWN_KEY": "two"}
    having = {name for name, service in services if keys.items() <= service.get("environment", {}).items()}
    assert having == {name for name, service in services if "HF_TOKEN" in str(service)} == {"worker", "ray-worker"}


def test_what_is_fetched_from_the_hub_is_kept_in_a_volume() -> None:
    image = (ROOT / "deployments" / "Dockerfile").read_text()
    volumes = [read(COMPOSE)["services"][name]["volumes"] for name in ("worker", "ray-worker")]
    for name in ("HF_HOME", "NORMLOOM_CACHE"):
        [place] = re.findall(rf"{name}=(\S+)", image)
        assert all(any(place.startswith(one.partition(":")[2]) for one in mounted) for mounted in volumes)


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_health_check_tells_a_service_that_answers_from_one_that_does_not() -> None:
    def healthy(*arguments: str) -> bool:
        return subprocess.run([ROOT / "deployments" / "healthy.sh", *arguments], check=False).returncode == 0

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = str(server.server_port)
        assert healthy(port)
        assert healthy(port, "/health")
        assert not healthy(port, "/other")
        server.shutdown()
    assert not healthy(port)


def test_every_system_has_a_deployment_whose_flow_can_be_loaded() -> None:
    from prefect.flows import load_flow_from_entrypoint

    deployments = read(ROOT / "deployments" / "prefect.yaml")["deployments"]
    assert {deployment["entrypoint"] for deployment in deployments} == {
        f"normloom.cli.deployed.{name}" for name in systems()
    }
    for deployment in deployments:
        flow: Flow[..., Any] = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
        assert set(deployment["parameters"]) <= set(flow.parameters.properties)
        assert deployment["concurrency_limit"]["limit"] == 1
        assert [schedule["active"] for schedule in deployment["schedules"]] == [False]


def test_a_silent_run_is_waited_for_longer_than_a_heartbeat() -> None:
    [automation] = read(AUTOMATIONS)["automations"]
    assert automation["trigger"]["within"] >= 3 * int(HEARTBEAT_SECONDS)


def test_a_run_that_has_ended_is_not_waited_for() -> None:
    [automation] = read(AUTOMATIONS)["automations"]
    ends = [Account(made=made, reused=1).state() for made in (0, 1)]
    ends += [waiting(WaitingError("no answers yet")), Failed(), Crashed(), Cancelled()]
    assert {f"prefect.flow-run.{state.name}" for state in ends} <= set(automation["trigger"]["expect"])


def test_ray_accepts_its_cluster_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(read(ROOT / "deployments" / "ray-cluster.yaml")))


def test_the_image_has_the_engines_of_the_default_profile() -> None:
    image = (ROOT / "deployments" / "Dockerfile").read_text()
    [engine] = re.findall(r"^ARG ENGINE=(\w+)$", image, re.MULTILINE)
    assert '".[statistics,media,$ENGINE]"' in image
    [profile] = re.findall(r"NORMLOOM_PROFILE:-(\w+)", COMPOSE.read_text())
    installs = {
        engine_of(spec).install
        for name, system in systems().items()
        for spec in model_uses(stages_of(*system.flow(validated(system.config, load_profile(profile, name))[0])))
    }
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    brought = {f'pip install "normloom[{extra}]"' for extra in ("statistics", "media", engine)}
    brought |= {f'pip install "{package}"' for package in extras[engine]}
    packages = {install.split()[-1] for install in installs - {None, *brought} if install}
    assert all(package in image for package in packages)
    assert re.findall(r"^vllm==", (ROOT / "constraints-gpu.txt").read_text(), re.MULTILINE)


def test_the_image_has_what_the_packages_import() -> None:
    copied = set(re.findall(r"^COPY (\w+) \1$", (ROOT / "deployments" / "Dockerfile").read_text(), re.MULTILINE))
    assert copied == {"normloom", "schemas", "tasks", "flows", "deployments"}
    assert {f"!{name}" for name in copied} <= set((ROOT / ".dockerignore").read_text().split())
