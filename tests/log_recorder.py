"""A stand-in for Prefect's API that keeps the lines of logs it is sent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Recorded:
    """What the API got, path, authorization and body of each request, and how it answers.

    `refusals` are status codes for its first requests, in order, with `retry_after`; any other takes it `seconds`.
    """

    url: str = ""
    requests: list[tuple[str, str | None, Any]] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    retry_after: str = "0"
    seconds: float = 0.0

    @property
    def messages(self) -> list[str]:
        return [entry["message"] for _, _, entries in self.requests for entry in entries]


class _Handler(BaseHTTPRequestHandler):
    recorded: Recorded

    def do_POST(self) -> None:  # the name that the base class calls
        kept = self.recorded
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if kept.refusals and self.headers["Prefect-Csrf-Token"] is None:
            self.send_response(kept.refusals.pop(0))
            self.send_header("Retry-After", kept.retry_after)
        else:
            time.sleep(kept.seconds)
            kept.requests.append((self.path, self.headers["Authorization"], body))
            self.send_response(201)
        self.end_headers()

    def do_GET(self) -> None:  # as above
        assert self.path.startswith("/api/csrf-token?client=")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"token": "a-token"}')

    def log_message(self, *_: object) -> None: ...


@contextmanager
def recording(*, seconds: float = 0.0) -> Iterator[Recorded]:
    recorded = Recorded(seconds=seconds)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"recorded": recorded}))
    recorded.url = f"http://127.0.0.1:{server.server_port}/api"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield recorded
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
