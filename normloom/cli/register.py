"""Register work pool, deployments and automations with the Prefect server that PREFECT_API_URL names.

    python -m normloom.cli.register [PREFECT_FILE]

If the store in NORMLOOM_STORE is reachable, its runs whose process is gone are reported to the server.

Run it again after every change. Changes made in the UI are kept: the work pool's limit and pause, and the schedules of
a registered deployment, whether changed, paused or added there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.workers.process import ProcessWorker

from normloom.cli.forms import offer_stages
from normloom.core.formats.yaml_text import load_yaml
from normloom.prefect.run_marks import settle
from normloom.prefect.serving.automations import install

DEPLOYMENTS = Path(__file__).parents[1] / "deployments" / "prefect.yaml"
WORK_POOL = "normloom"
BUILDS_AT_ONCE = 1  # of a new work pool; people with room for more raise it in the UI


def register(path: Path = DEPLOYMENTS) -> None:
    """Register the file's deployments; raises CalledProcessError, after Prefect's message, if Prefect rejects them."""
    content = load_yaml(path.read_text(encoding="utf-8"))
    with get_client(sync_client=True) as client:
        content["deployments"] = [_without_known_schedules(entry, client) for entry in content["deployments"]]
        _make_pool(client)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        _deploy(file)
    for entry in content["deployments"]:
        offer_stages(_full_name(entry))
    install()
    if store := os.environ.get("NORMLOOM_STORE"):
        settle(Path(store))


def _full_name(entry: dict[str, Any]) -> str:
    return f"{entry['entrypoint'].rpartition('.')[2]}/{entry['name']}"


def _without_known_schedules(entry: dict[str, Any], client: SyncPrefectClient) -> dict[str, Any]:
    """Return a deployment without its schedules if the server knows it: Prefect then keeps its own."""
    try:
        client.read_deployment_by_name(_full_name(entry))
    except ObjectNotFound:
        return entry
    return {name: value for name, value in entry.items() if name != "schedules"}


def _make_pool(client: SyncPrefectClient) -> None:
    """Make the work pool unless the server has it."""
    template = ProcessWorker.get_default_base_job_template()
    pool = WorkPoolCreate(
        name=WORK_POOL, type=ProcessWorker.type, base_job_template=template, concurrency_limit=BUILDS_AT_ONCE
    )
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(pool)


def _deploy(file: Path) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    subprocess.run(command, check=True)  # noqa: S603  # Prefect's own command


if __name__ == "__main__":
    register(*map(Path, sys.argv[1:]))
