"""Requests that are refused, as a client sees it that is still sending."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from normloom.store.store import Store
from normloom.view import ViewServer


@pytest.mark.parametrize("sent", [b"{}", b"x" * (3 << 20)])
def test_a_refused_request_is_read_before_it_is_answered(tmp_path: Path, sent: bytes) -> None:
    """A connection that is closed with bytes of the client's left is reset, and the answer is lost."""
    with ViewServer(Store(tmp_path)) as server:
        address = urlsplit(server.url)
        with socket.create_connection((str(address.hostname), int(address.port or 0))) as client:
            head = f"POST /api/chat/say HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(sent)}\r\n\r\n"
            client.sendall(head.encode())
            client.settimeout(0.5)
            with pytest.raises(TimeoutError):
                client.recv(1)
            client.settimeout(60)
            client.sendall(sent[: 1 << 20])
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 403 ")
