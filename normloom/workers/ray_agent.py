"""A stand-in for either of the two agents that Ray runs on every node, for a cluster of this machine alone.

    python -I -S ray_agent.py AGENT PROGRAM --session-dir=FOLDER --node-id=ID …

One agent serves the dashboard, the other prepares runtime environments. A node is not up until both have written the
ports that they listen on, for which each imports for a second, and a build asks for neither. The stand-in for the first
writes that nothing listens. The stand-in for the second listens, and becomes Ray's own agent when it is first asked.
Both exit when the node does. They import little, since builds wait for them.
"""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Sequence

DASHBOARD, RUNTIME_ENV = "dashboard_agent", "runtime_env_agent"  # as Ray names them
AGENTS = (DASHBOARD, RUNTIME_ENV)
_DASHBOARD_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
_NOTHING = -1  # as Ray writes if a service is off
_PORT = "--runtime-env-agent-port="


def main(agent: str, command: Sequence[str]) -> None:
    """Stand in for an agent; `command` is Ray's own, a program and its options."""
    if agent == DASHBOARD:
        for name in _DASHBOARD_PORTS:
            _write(name, _NOTHING, command)
        sys.stdin.buffer.read()  # a pipe that the node holds
        return
    host, port = _option("node-ip-address", command), int(_option("runtime-env-agent-port", command))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as server:
        port = server.getsockname()[1]
        _write("runtime_env_agent_port", port, command)
        asked, _, _ = select.select([server, sys.stdin], [], [])
    if server in asked:
        own = [f"{_PORT}{port}" if option.startswith(_PORT) else option for option in command]
        os.execv(sys.executable, [sys.executable, "-u", *own])  # noqa: S606  # as Ray starts it; the node asks again


def _option(name: str, command: Sequence[str]) -> str:
    return next(option.partition("=")[2] for option in command if option.startswith(f"--{name}="))


def _write(name: str, port: int, command: Sequence[str]) -> None:
    """Write a port to the file that the node waits for, as Ray's `persist_port` does."""
    path = f"{_option('session-dir', command)}/{name}_{_option('node-id', command)}"
    with open(f"{path}.new", "w", encoding="ascii") as file:  # noqa: PTH123  # pathlib takes time to import
        file.write(str(port))
    os.replace(f"{path}.new", path)  # noqa: PTH105  # as above


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
