"""Builds that wait for people's answers continue by themselves: once answered, their deployment runs again."""

from __future__ import annotations

import logging
from uuid import UUID

from normloom.core.errors import NormloomError
from normloom.history.builds import locks
from normloom.history.unfinished import UnfinishedBuild, unfinished
from normloom.labelling.asking import ANSWERED
from normloom.labelling.queue import open_queue
from normloom.store.files import write_file
from normloom.store.layout import BUILDS
from normloom.store.store import Store

log = logging.getLogger("normloom.watch")

_GONE_ON = ".gone-on"  # the build that was last scheduled again


def go_on(store: Store) -> list[str]:
    """Schedule the runs of deployments again whose build waits for answers that are all there; return their systems.

    A run started in a terminal has no deployment; it continues when its command is run again.
    """
    gone_on = []
    for system in store.systems():
        try:
            build = _answered(store, system)
            if build and build.flow_run and _schedule(build, UUID(build.flow_run)):
                write_file(store.root / system / BUILDS / _GONE_ON, build.build.encode())
                gone_on.append(system)
        except NormloomError as error:
            log.warning("cannot tell whether %s can continue: %s", system, error)
    return gone_on


def _answered(store: Store, system: str) -> UnfinishedBuild | None:
    """Return the newest build of a system if it waited for answers and has them now."""
    left = unfinished(store, system)
    if not left or left[-1].state != "waiting" or not (left[-1].stage or "").startswith(ANSWERED):
        return None
    build = left[-1]
    mark = store.root / system / BUILDS / _GONE_ON
    if mark.exists() and mark.read_text(encoding="utf-8") == build.build:
        return None
    if any(lock.build > build.build for lock in locks(store, system, newest=1)):
        return None
    queue = open_queue(store, (build.stage or "").removeprefix(ANSWERED), system=system)
    return None if queue.progress().waiting else build


def _schedule(build: UnfinishedBuild, run_id: UUID) -> bool:
    """Schedule the deployment of a run once more, with its parameters; return whether it has one."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(run_id)
            if run.deployment_id is None:
                return False
            client.create_flow_run_from_deployment(run.deployment_id, parameters=run.parameters)
        except ObjectNotFound:  # the run or its deployment is gone
            return False
    log.info("%s continues: all rows that build %s waited for are answered", build.system, build.build)
    return True
