"""What stands in for Ray's two agents beside a node of this machine alone.

    python -I -S ray_agent.py AGENT --session-dir=FOLDER --node-id=ID …

The one reports figures to a dashboard, the other prepares environments of packages: neither is wanted here, yet a node
is up only once both have said where they listen. This says that nobody does, in a hundredth of the time, and ends with
the node. It imports little, since a build waits for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

NOWHERE = {
    "dashboard_agent": ("-1", ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")),
    "runtime_env_agent": ("1", ("runtime_env_agent_port",)),  # -1 is refused; nobody listens on port 1
}


def main(kind: str, options: Sequence[str]) -> None:
    """Write the files that the node waits for, as Ray's `persist_port` does, and stay until its end."""
    given = dict(option.removeprefix("--").split("=", 1) for option in options if "=" in option)
    port, names = NOWHERE[kind]
    for name in names:
        path = os.path.join(given["session-dir"], f"{name}_{given['node-id']}")  # noqa: PTH118  # pathlib takes time
        with open(f"{path}.new", "w", encoding="ascii") as file:  # noqa: PTH123  # as above
            file.write(port)
        os.replace(f"{path}.new", path)  # noqa: PTH105  # as above
    sys.stdin.buffer.read()  # a pipe that the node holds


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[3:])  # what follows the kind is Ray's own command: a program and its options
