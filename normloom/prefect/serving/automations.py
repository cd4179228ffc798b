"""Install the automations of `deployments/automations.yaml` on the Prefect server that PREFECT_API_URL names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from prefect.automations import Automation

from normloom.core.formats.yaml_text import load_yaml

AUTOMATIONS = Path(__file__).parents[2] / "deployments" / "automations.yaml"


def install(path: Path = AUTOMATIONS) -> list[str]:
    """Bring the server's automations of these names in line with the file and return the names.

    One that is as it should be is left alone: an update makes Prefect forget the runs whose heartbeats it counts.
    """
    automations = [Automation.model_validate(entry) for entry in load_yaml(path.read_text())["automations"]]
    for automation in automations:
        try:
            installed = cast(Automation, Automation.read(name=automation.name))
        except ValueError:  # there is none of this name yet
            automation.create()
            continue
        automation.id = installed.id
        if _content(installed) != _content(automation):
            automation.update()
    return [automation.name for automation in automations]


def _content(automation: Automation) -> dict[str, Any]:
    """Return what the file says of an automation; whether it is enabled is for people to say."""
    return automation.model_dump(
        mode="json", include={"description", "trigger", "actions"}, exclude={"trigger": {"id"}}
    )
