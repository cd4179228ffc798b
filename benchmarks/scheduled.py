"""What a run with nothing to do costs under `normloom serve`: CPU seconds of the build and of the server.

The first run builds; later runs find everything released. Figures include what serve's own loop uses meanwhile;
`waited` is the time from the request to the end of the run, including the server's polling.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
from common import Report, parser

ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--system", default="savacu")
    arguments.add_argument("--profile", default="local", help="one with scripted models measures no model")
    arguments.add_argument("--rows", type=int, default=4)
    arguments.add_argument("--runs", type=int, default=4)
    given = arguments.parse_args()
    report = Report(given.json)
    with TemporaryDirectory(prefix="normloom-bench-") as folder, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        command = [str(Path(sys.executable).with_name("normloom")), "serve", given.system, "--profile", given.profile]
        command += ["--limit", str(given.rows), "--store", f"{folder}/store", "--port", str(port)]
        environment = {**os.environ, "PREFECT_HOME": f"{folder}/prefect"}
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as serve:
            try:
                report.add("A run under serve", measured(given.system, given.runs, port, psutil.Process(serve.pid)))
            finally:
                serve.terminate()
    report.end()


def measured(system: str, runs: int, port: int, serve: psutil.Process) -> list[dict[str, Any]]:
    """Return a line for each run."""
    lines = []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=60) as client:
        deployment = registered(client, system, serve)
        for number in range(runs):
            time.sleep(10)  # what serve does when it starts has ended
            standing = serve.children()
            [server] = [child for child in standing if "normloom.prefect.server" in child.cmdline()]
            others = [serve, *(child for child in standing if child != server)]
            before, started = (sum(map(spent, others)), spent(server)), time.time()
            run = client.post(f"/deployments/{deployment}/create_flow_run", json={}).raise_for_status().json()["id"]
            while (state := client.get(f"/flow_runs/{run}").json()["state"])["type"] not in ENDS:
                time.sleep(1)
            waited = time.time() - started
            while set(serve.children(recursive=True)) - set(standing):  # one counts with its parent once it has ended
                time.sleep(0.2)
            after = sum(map(spent, others)), spent(server)
            took = {"build cpu s": after[0] - before[0], "server cpu s": after[1] - before[1], "waited s": waited}
            lines.append({"run": number, "ended": state["name"], **took})
    return lines


def registered(client: httpx.Client, system: str, serve: psutil.Process) -> str:
    """Return the id of the system's deployment once it is there."""
    while serve.status() != psutil.STATUS_ZOMBIE:
        try:
            answer = client.get(f"/deployments/name/{system}/serve")
        except httpx.TransportError:
            answer = None
        if answer and answer.is_success:
            return str(answer.json()["id"])
        time.sleep(0.5)
    raise SystemExit("normloom serve ended")


def spent(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and of its children that have ended."""
    return float(sum(process.cpu_times()[:4]))


if __name__ == "__main__":
    main()
