"""The deployments that `normloom serve` registers, their schedules next to those that people set in Prefect's UI."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron, Schedule
from pydantic import ValidationError

from normloom.core.errors import UsageError

DEPLOYMENT = "serve"
SLUG_PREFIX = "serve-"


def cron(schedule: str, timezone: str) -> Schedule:
    """Return a cron schedule; raises UsageError if it or its time zone is wrong."""
    try:
        CronSchedule(cron=schedule, timezone=timezone)
    except ValidationError as error:
        raise UsageError(f"--schedule, --timezone: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
    return Cron(schedule, timezone=timezone, slug=_slug(schedule, timezone))


def _slug(schedule: str, timezone: str) -> str:
    """Return the name of a schedule of this command: by it a later run of the command knows its own again."""
    return SLUG_PREFIX + hashlib.blake2b(f"{schedule} {timezone}".encode(), digest_size=6).hexdigest()


def _schedule_to_register(name: str, when: Schedule | None, *, active: bool | None) -> Schedule | None:
    """Return the schedule to register with a deployment, None if the server is to keep what it has.

    A schedule of an earlier run of this command that `when` replaces is removed. With `active` the deployment's
    schedule is turned on or off; without, one that is there stays as people set it.
    """
    if when is None:
        return None
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(name)
        except ObjectNotFound:
            return replace(when, active=active is not False)
        ours = {one.slug: one for one in deployment.schedules if (one.slug or "").startswith(SLUG_PREFIX)}
        known = ours.pop(when.slug, None)
        for outdated in ours.values():
            client.delete_deployment_schedule(deployment.id, outdated.id)
        if known is None:
            schedule = CronSchedule(cron=str(when.cron), timezone=when.timezone)
            new = DeploymentScheduleCreate(schedule=schedule, active=active is not False, slug=when.slug)
            client.create_deployment_schedules(deployment.id, [new])
        elif active is not None:
            client.update_deployment_schedule(deployment.id, known.id, active=active)
    return None


def served(
    name: str, parameters: dict[str, Any], when: Schedule | None, *, active: bool | None, attribute: str | None = None
) -> RunnerDeployment:
    """Return the deployment of a system to serve, with the schedule that the server does not have yet.

    `attribute` is the flow's name in `normloom.cli.deployed`, by default the system's.
    """
    new = _schedule_to_register(f"{name}/{DEPLOYMENT}", when, active=active)
    # A run that was asked for is never lost. With CANCEL_NEW it would be while another runs, and for the minutes
    # that Prefect takes to give back the slot of one that was killed.
    one_at_a_time = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    deployment = RunnerDeployment.from_entrypoint(
        f"normloom.cli.deployed.{attribute or name}",
        DEPLOYMENT,
        schedule=new,
        parameters=parameters,
        tags=[name],
        concurrency_limit=one_at_a_time,
    )
    if new is None:  # an empty list, which Prefect sets by itself, would remove all that the server has
        deployment.model_fields_set.discard("schedules")
    return deployment
