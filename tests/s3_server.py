"""An S3 server on loopback: moto's, which answers one request at a time, so that conditional puts are atomic."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

SECRET = "not-a-real-secret-of-tests"
BUCKET = "bucket"


@dataclass
class Held:
    """A request on its way: the first of this method whose name matches waits here until it is let go."""

    method: str
    pattern: str
    seen: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)
    answered: threading.Event = field(default_factory=threading.Event)
    lost: bool = False

    def takes(self, method: str, path: str) -> bool:
        return method == self.method and fnmatchcase(path, self.pattern) and not self.seen.is_set()

    def end(self, *, lost: bool) -> None:
        """Let the request arrive, or be lost: its client hears that the server is busy, and asks again."""
        self.lost = lost
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
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "NORMLOOM_LEASE_SECONDS": "3",
        }

    @property
    def client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.endpoint)

    def names(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [one["Key"] for page in pages for one in page.get("Contents", [])]

    def read(self, name: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        return content


@contextmanager
def s3_server() -> Iterator[S3Server]:
    application = DomainDispatcherApplication(create_backend_app)
    turn = threading.Lock()
    held: list[Held] = []

    def in_turn(environment: Any, start: Any) -> Any:
        method, path = environment["REQUEST_METHOD"], environment["PATH_INFO"]
        found = next((one for one in held if one.takes(method, path)), None)
        if found is None:
            with turn:
                return list(application(environment, start))
        found.seen.set()
        body = environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))  # its client sleeps later
        environment["wsgi.input"] = io.BytesIO(body)
        found.let_go.wait()
        try:
            if found.lost:
                start("503 Slow Down", [("Content-Length", "0")])
                return [b""]
            with turn:
                return list(application(environment, start))
        finally:
            found.answered.set()

    server = make_server("127.0.0.1", 0, in_turn, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    before = dict(os.environ)
    found = S3Server(f"http://127.0.0.1:{server.server_port}", held=held)
    os.environ |= found.environment
    try:
        found.client.create_bucket(Bucket=BUCKET)
        yield found
    finally:
        os.environ.clear()
        os.environ |= before
        server.shutdown()
        thread.join()
        server.server_close()
