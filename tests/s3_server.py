"""An S3 server on loopback: moto's, or the one at NORMLOOM_TEST_S3 (a plain http address), behind a proxy.

The proxy holds requests back where a test asks for it. Before moto it also answers one request at a time, so that
conditional puts are atomic, and refuses signed requests that have expired, as S3 does and moto does not.
NORMLOOM_TEST_S3_KEY and NORMLOOM_TEST_S3_SECRET are the credentials for the other server; its bucket
`normloom-tests` is emptied.
"""

from __future__ import annotations

import http.client
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

REAL = os.environ.get("NORMLOOM_TEST_S3", "")
KEY = os.environ.get("NORMLOOM_TEST_S3_KEY", "tests")
SECRET = os.environ.get("NORMLOOM_TEST_S3_SECRET", "not-a-real-secret-of-tests")
BUCKET = "normloom-tests"

_OF_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "date", "server"}
Answer = tuple[str, list[tuple[str, str]], bytes]


@dataclass
class Held:
    """A request on its way: the first of this method whose name matches waits here until it is let go."""

    method: str
    pattern: str
    seen: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)
    answered: threading.Event = field(default_factory=threading.Event)
    lost: bool = False
    status: str = "503 Slow Down"

    def takes(self, method: str, path: str) -> bool:
        return method == self.method and fnmatchcase(path, self.pattern) and not self.seen.is_set()

    def end(self, *, lost: bool, status: str = "503 Slow Down") -> None:
        """Let the request arrive, or be lost: its client hears that the server is busy, or what `status` says."""
        self.lost, self.status = lost, status
        self.let_go.set()
        assert self.answered.wait(60)


@dataclass(frozen=True)
class S3Server:
    """A server with one empty bucket; `environment` is what a process needs to use it."""

    endpoint: str
    bucket: str = BUCKET
    held: list[Held] = field(default_factory=list)

    @contextmanager
    def holding(self, method: str, pattern: str) -> Iterator[Held]:
        """Hold the first request of this method for a name that matches."""
        held = Held(method, f"/{self.bucket}/{pattern}")
        self.held.append(held)
        try:
            yield held
        finally:
            held.let_go.set()
            self.held.remove(held)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "NORMLOOM_LEASE_SECONDS": "3",
        }

    @cached_property
    def client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.endpoint)

    def names(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [one["Key"] for page in pages for one in page.get("Contents", [])]

    def read(self, name: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        return content


class _Quiet(WSGIRequestHandler):
    def log_request(self, *said: Any) -> None:
        """Say nothing: there are thousands of requests."""


@contextmanager
def s3_server() -> Iterator[S3Server]:
    answered = _forwarded if REAL else _by_moto()
    held: list[Held] = []

    def proxy(environment: Any, start: Any) -> Any:
        method, path = environment["REQUEST_METHOD"], environment["PATH_INFO"]
        body = environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))  # its client may sleep
        environment["wsgi.input"] = io.BytesIO(body)
        found = next((one for one in held if one.takes(method, path)), None)
        if found:
            found.seen.set()
            found.let_go.wait()
        try:
            refused = found.status if found and found.lost else None
            empty = [("Content-Length", "0")]
            status, headers, content = (refused, empty, b"") if refused else answered(environment, body)
            start(status, headers)
            return [content]
        finally:
            if found:
                found.answered.set()

    server = make_server("127.0.0.1", 0, proxy, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    before = dict(os.environ)
    found = S3Server(f"http://127.0.0.1:{server.server_port}", held=held)
    os.environ |= found.environment
    try:
        found.client.create_bucket(Bucket=BUCKET)
        for name in found.names():
            found.client.delete_object(Bucket=BUCKET, Key=name)
        yield found
    finally:
        os.environ.clear()
        os.environ |= before
        server.shutdown()
        thread.join()
        server.server_close()


def _by_moto() -> Callable[[Any, bytes], Answer]:
    application: Any = create_backend_app("s3")  # the dispatcher before it lists moto's modules at each request
    turn = threading.Lock()

    def answered(environment: Any, body: bytes) -> Answer:
        del body
        if _has_expired(environment):
            return "403 Forbidden", [("Content-Length", "0")], b""
        said: list[Any] = []
        with turn:
            content = b"".join(application(environment, lambda status, headers, _=None: said.extend((status, headers))))
        return said[0], said[1], content

    return answered


def _has_expired(environment: Any) -> bool:
    signed = {name: values[0] for name, values in parse_qs(environment["QUERY_STRING"]).items()}
    if "X-Amz-Expires" not in signed:
        return False
    began = datetime.strptime(signed["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return datetime.now(UTC) >= began + timedelta(seconds=int(signed["X-Amz-Expires"]))


def _forwarded(environment: Any, body: bytes) -> Answer:
    """Ask the real server, whose signature covers the name of the host that the client used."""
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").title(): value
        for name, value in environment.items()
        if name.startswith("HTTP_") or name in {"CONTENT_TYPE", "CONTENT_LENGTH"}
        if value and name != "HTTP_CONNECTION"
    }
    connection = http.client.HTTPConnection(urlsplit(REAL).netloc, timeout=60)
    try:
        connection.request(environment["REQUEST_METHOD"], environment["REQUEST_URI"], body or None, headers)
        answer = connection.getresponse()
        content = answer.read()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OF_THE_CONNECTION]
        if environment["REQUEST_METHOD"] != "HEAD":
            kept = [(name, value) for name, value in kept if name.lower() != "content-length"]
            kept.append(("Content-Length", str(len(content))))
        return f"{answer.status} {answer.reason}", kept, content
    finally:
        connection.close()
