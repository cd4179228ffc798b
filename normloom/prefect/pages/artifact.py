"""Pages as artifacts of Prefect: under which key, where, and left with a run."""

from __future__ import annotations

import logging
import re
from uuid import UUID

from normloom.prefect.reach import ServerReach, few_tries

ARTIFACTS = "/v2/artifacts"  # without /v2 a link leads into Prefect's first interface, which draws no graph

log = logging.getLogger(__name__)


def artifact_key(system: str, stage: str | None = None) -> str:
    """Return the key of a table's page, or of a system's; Prefect allows lower-case letters, digits and dashes."""
    name = system if stage is None else f"{system}-{stage}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def publish(
    key: str,
    markdown: str,
    description: str,
    reach: ServerReach,
    *,
    page: str | None = None,
    task: str | None = None,
) -> str | None:
    """Leave a page with the run that is at work, or change the one with the id `page`, and return its id.

    The page is that of the task run with the id `task`, by default of the one at work. A server that refuses it or does
    not answer does not stop the build: that is logged, and None returned.
    """
    from httpx import HTTPStatusError, RequestError
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
    from prefect.utilities.context import get_task_and_flow_run_ids

    if not reach.worth_trying():
        return None
    try:
        with few_tries(1), get_client(sync_client=True) as client:
            if page is None:
                here, run = get_task_and_flow_run_ids()
                new = ArtifactCreate(
                    type="markdown",
                    key=key,
                    description=description,
                    data=markdown,
                    task_run_id=UUID(task) if task else here,
                    flow_run_id=run,
                )
                page = str(client.create_artifact(new).id)
            else:
                client.update_artifact(UUID(page), ArtifactUpdate(data=markdown, description=description))
    except HTTPStatusError as error:
        log.warning("the page %s is not in Prefect's UI: %s", key, error)
        return None
    except RequestError as error:
        reach.lost(error)
        return None
    reach.back()
    return page
