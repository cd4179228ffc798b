"""Install the automations of `deployments/automations.yaml` on the Prefect server that PREFECT_API_URL names."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import yaml
from prefect.automations import Automation

AUTOMATIONS = Path(__file__).parent.parent / "deployments" / "automations.yaml"


def install(path: Path = AUTOMATIONS) -> list[str]:
    """Bring the server's automations of these names in line with the file and return the names."""
    automations = [Automation.model_validate(entry) for entry in yaml.safe_load(path.read_text())["automations"]]
    for automation in automations:
        try:
            automation.id = cast(Automation, Automation.read(name=automation.name)).id
        except ValueError:  # there is none of this name yet
            automation.create()
        else:
            automation.update()
    return [automation.name for automation in automations]


if __name__ == "__main__":
    install()
