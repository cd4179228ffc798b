"""An S3 server on loopback: moto's, which answers one request at a time, so that conditional puts are atomic."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

SECRET = "not-a-real-secret-of-tests"
BUCKET = "bucket"


@dataclass(frozen=True)
class S3Server:
    """A server with one empty bucket; `environment` is what a process needs to use it."""

    endpoint: str
    bucket: str = BUCKET

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

    def in_turn(environment: Any, start: Any) -> Any:
        with turn:
            return list(application(environment, start))

    server = make_server("127.0.0.1", 0, in_turn, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    before = dict(os.environ)
    found = S3Server(f"http://127.0.0.1:{server.server_port}")
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
