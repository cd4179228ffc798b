"""What is registered again keeps what people set in Prefect's UI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import SCHEDULE_TYPES, CronSchedule
from prefect.schedules import Schedule
from prefect_home import Prefect

from normloom.cli.register import DEPLOYMENTS, WORK_POOL, register
from normloom.core.errors import UsageError
from normloom.prefect.serving.schedules import cron, served

NIGHTLY = cron("0 2 * * *", "UTC")


@pytest.fixture(scope="module")
def client(shared_prefect: Prefect) -> Iterator[SyncPrefectClient]:
    with pytest.MonkeyPatch.context() as patch, shared_prefect.used():
        patch.setenv("NORMLOOM_PROFILE", "local")
        patch.setenv("NORMLOOM_STORE", "/store")
        patch.setenv("NORMLOOM_RAY", "no-cluster:6379")  # registering asks none
        with get_client(sync_client=True) as client:
            yield client


def schedules(client: SyncPrefectClient, name: str) -> dict[str, DeploymentSchedule]:
    """The schedules of a deployment by their cron."""
    found = client.read_deployment_by_name(name).schedules
    return {one.schedule.cron: one for one in found if isinstance(one.schedule, CronSchedule)}


def test_registering_again_keeps_the_schedules_and_the_pool_as_people_set_them(
    client: SyncPrefectClient, tmp_path: Path
) -> None:
    register()
    name = "savacu/scheduled"
    [nightly] = schedules(client, name).values()
    assert not nightly.active
    deployment = client.read_deployment_by_name(name)
    assert deployment.parameter_openapi_schema
    assert "publish" in deployment.parameter_openapi_schema["properties"]["from_stage"]["enum"]
    assert client.read_work_pool(WORK_POOL).concurrency_limit == 1
    client.update_deployment_schedule(deployment.id, nightly.id, active=True)
    weekly: list[tuple[SCHEDULE_TYPES, bool]] = [(CronSchedule(cron="30 4 * * 1"), True)]
    client.create_deployment_schedules(deployment.id, weekly)
    client.update_work_pool(WORK_POOL, WorkPoolUpdate(is_paused=True, concurrency_limit=3))
    automation = Automation.read(name="normloom-crash-silent-runs")

    content = yaml.safe_load(DEPLOYMENTS.read_text())
    content["deployments"] = content["deployments"][:1]
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(content))
    register(tmp_path / "one.yaml")
    found = schedules(client, name)
    assert {cron: one.active for cron, one in found.items()} == {"0 1 * * *": True, "30 4 * * 1": True}
    pool = client.read_work_pool(WORK_POOL)
    assert (pool.is_paused, pool.concurrency_limit) == (True, 3)
    assert Automation.read(name="normloom-crash-silent-runs") == automation


def serve_once(when: Schedule | None, *, active: bool | None = None) -> None:
    """Register a deployment as `normloom serve` does when it starts."""
    served("benchmark", {}, when, active=active).apply()


def test_serving_again_keeps_what_was_paused_changed_or_added(client: SyncPrefectClient) -> None:
    serve_once(NIGHTLY)
    [nightly] = schedules(client, "benchmark/serve").values()
    assert nightly.active
    deployment = client.read_deployment_by_name("benchmark/serve")
    moved = CronSchedule(cron="15 3 * * *", timezone="UTC")
    client.update_deployment_schedule(deployment.id, nightly.id, active=False, schedule=moved)
    weekly: list[tuple[SCHEDULE_TYPES, bool]] = [(CronSchedule(cron="30 4 * * 1"), True)]
    client.create_deployment_schedules(deployment.id, weekly)
    for when in (NIGHTLY, None):
        serve_once(when)
        found = schedules(client, "benchmark/serve")
        assert {cron: one.active for cron, one in found.items()} == {"15 3 * * *": False, "30 4 * * 1": True}

    serve_once(NIGHTLY, active=True)  # asked for
    assert schedules(client, "benchmark/serve")["15 3 * * *"].active
    serve_once(cron("0 5 * * *", "UTC"))  # another schedule takes the place of the command's own
    assert set(schedules(client, "benchmark/serve")) == {"0 5 * * *", "30 4 * * 1"}


def test_a_deployment_served_first_without_a_schedule_can_be_given_one(client: SyncPrefectClient) -> None:
    served("savacu", {}, None, active=None).apply()
    served("savacu", {}, NIGHTLY, active=False).apply()
    [nightly] = schedules(client, "savacu/serve").values()
    assert not nightly.active


def test_a_wrong_schedule_is_refused() -> None:
    with pytest.raises(UsageError, match="--schedule"):
        cron("0 2 x * *", "UTC")


def test_the_file_of_deployments_is_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        register(tmp_path / "missing.yaml")
