"""The form of a run in Prefect's UI: stages are picked from a list instead of typed."""

from __future__ import annotations

import logging
from copy import deepcopy
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate

from normloom.cli.common import DEFAULT_PROFILE, DEFAULT_STORE, assignments
from normloom.core.errors import NormloomError
from normloom.settings.flow_file import named_by
from normloom.settings.settings import stages_for
from normloom.steps.graph import stages_of
from normloom.store.store import Store

NO_CLUSTER = "resources.address=null"  # names are the same on any: none is asked, which would take seconds a system
ONE, SEVERAL = ("from_stage",), ("only", "force")  # parameters of a run that name stages

log = logging.getLogger("normloom")


def offer_stages(name: str) -> None:
    """Let the form of a registered deployment, FLOW/NAME, offer the stages that its own parameters lead to.

    The list is not exhaustive: a run with another profile has other stages, so the server must accept other names. The
    build checks every parameter itself.
    """
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(name)
        try:
            attribute = (deployment.entrypoint or "").rpartition(".")[2]
            stages = _stages(named_by(attribute) or name.partition("/")[0], deployment.parameters)
        except NormloomError as error:
            log.warning("the form of %s does not list the stages: %s", name, error)
            return
        schema = deepcopy(dict(deployment.parameter_openapi_schema or {}))
        choice = {"type": "string", "enum": stages}
        for parameter, field in schema["properties"].items():
            if parameter in ONE:
                del field["anyOf"]  # of a text and nothing, for which Prefect draws a switch and no list
                field.update(choice)
            elif parameter in SEVERAL:
                field.update(items=choice, uniqueItems=True)
        update = DeploymentUpdate(parameter_openapi_schema=schema, enforce_parameter_schema=False)
        client.update_deployment(deployment.id, update)


def _stages(system: str, parameters: dict[str, Any]) -> list[str]:
    """Return the names of the stages that a run with these parameters has."""
    given = assignments(
        source=parameters.get("source"),
        text_column=parameters.get("text_column"),
        limit=parameters.get("limit"),
        settings=[*(parameters.get("settings") or ()), NO_CLUSTER],
    )
    store = Store(Path(parameters.get("store") or DEFAULT_STORE))
    ends = stages_for(system, profile=parameters.get("profile") or DEFAULT_PROFILE, assignments=given, store=store).ends
    return [stage.name for stage in stages_of(*ends) if stage.table is None]
