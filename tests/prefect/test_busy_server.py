"""A build whose run Prefect's server is too busy to take at first."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from prefect_api import Api
from prefect_home import Prefect
from scripted_profile import write_profile

PLAIN = {"Accept-Encoding": "identity", "Connection": "close"}
REFUSED = 4  # more often than a build lets Prefect's client ask by itself


@contextmanager
def busy(url: str, asked: re.Pattern[str], refusals: list[str]) -> Iterator[str]:
    """Hand requests on to a Prefect server, but answer 503 to the first POSTs to `asked`, noted in `refusals`."""
    there = urlsplit(url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._hand_on()

        do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815  # the library's names

        def _hand_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.command == "POST" and asked.fullmatch(self.path) and len(refusals) < REFUSED:
                refusals.append(self.path)
                return self._answer(503, b'{"exception_message": "Service Unavailable"}')
            connection = http.client.HTTPConnection(str(there.hostname), there.port)
            kept = {name: value for name, value in self.headers.items() if name.title() not in PLAIN}
            connection.request(self.command, self.path, body, kept | PLAIN)
            answer = connection.getresponse()
            return self._answer(answer.status, answer.read())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


def built(prefect: Prefect, place: Path, asked: str) -> list[str]:
    """Build a stage on a server that is too busy for what is `asked`; return the states of its flow runs."""
    refusals: list[str] = []
    with busy(prefect.url, re.compile(asked), refusals) as url:
        profile, store = write_profile(place / "scripted.yaml"), str(place / "store")
        arguments = ["--profile", str(profile), "--limit", "4", "--store", store, "--only", "ingest"]
        done = subprocess.run(
            [sys.executable, "-m", "normloom", "build", "savacu", *arguments],
            env={**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(prefect.home)},
            capture_output=True,
            check=False,
        )
        runs = Api(prefect.url, alive=lambda: True).found("/flow_runs/filter", sort="EXPECTED_START_TIME_DESC")
    assert done.returncode == 0, done.stderr.decode()
    assert len(refusals) == REFUSED
    return [run["state"]["type"] for run in runs if store in str(run["parameters"])]


def test_a_run_that_a_busy_server_does_not_take_is_offered_again(shared_prefect: Prefect, tmp_path: Path) -> None:
    assert built(shared_prefect, tmp_path, "/api/flow_runs/") == ["COMPLETED"]


def test_a_run_that_it_keeps_but_does_not_begin_is_taken_back(shared_prefect: Prefect, tmp_path: Path) -> None:
    assert built(shared_prefect, tmp_path, "/api/flow_runs/[^/]+/set_state") == ["COMPLETED"]
