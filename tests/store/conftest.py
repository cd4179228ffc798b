from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from s3_server import S3Server, s3_server


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """An S3 server on loopback, or the one that the environment names."""
    with s3_server() as running:
        yield running


@pytest.fixture
def place(server: S3Server, request: pytest.FixtureRequest) -> str:
    """The address of a store of the test's own on it."""
    return f"s3://{server.bucket}/{re.sub(r'[^0-9A-Za-z]+', '-', request.node.name)}"
