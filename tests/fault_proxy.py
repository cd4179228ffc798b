"""A proxy on loopback that lets an HTTP server answer badly: every n-th request is done to as a fault says."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from urllib.parse import urlsplit

FAULTS = ("limited", "broken", "cut", "half", "garbage", "foreign", "slow")
_ANSWERS = {
    "limited": b'HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\n\r\n{"error": {"message": "slow down"}}',
    "broken": b'HTTP/1.1 500 Internal Server Error\r\n\r\n{"error": {"message": "out of order"}}',
    "cut": b"",
    "half": b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nContent-Type: application/json\r\n\r\n{"choices": [',
    "garbage": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n\x00\xff{]",
    "foreign": b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"choices": [{"text": "of another kind"}]}',
}


@dataclass
class FaultProxy:
    """What the proxy does and has done. `every` 0 lets all requests pass."""

    upstream: str
    every: int
    faults: Sequence[str]
    slow_s: float
    base_url: str = ""
    requests: int = 0
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._next = cycle(self.faults)

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection."""
        try:
            request = await _request(reader)
            self.requests += 1
            if self.every and self.requests % self.every == 0:
                fault = next(self._next)
                self.done[fault] += 1
                if fault == "slow":
                    await asyncio.sleep(self.slow_s)
                writer.write(_ANSWERS.get(fault, b""))
            else:
                writer.write(await self._ask(request))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side went away
        finally:
            await _close(writer)

    async def _ask(self, request: bytes) -> bytes:
        address = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(request)
            return await reader.read()
        finally:
            await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def _request(reader: asyncio.StreamReader) -> bytes:
    """Return a request as it came, but for asking that the connection be closed after it."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    headers = {line.partition(b":")[0].lower(): line for line in lines}
    headers[b"connection"] = b"Connection: close"
    length = int(headers[b"content-length"].partition(b":")[2])
    return b"\r\n".join([first, *headers.values(), b"", await reader.readexactly(length)])


@contextmanager
def faulty(upstream: str, *, every: int, faults: Sequence[str] = FAULTS, slow_s: float = 3.0) -> Iterator[FaultProxy]:
    """Stand before the server at `upstream` (its base_url) on an address of one's own."""
    proxy = FaultProxy(upstream, every, faults, slow_s)
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(proxy.pass_on, "127.0.0.1", 0)
        proxy.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{urlsplit(upstream).path}"
        started.set()
        await ended.wait()
        server.close()
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await server.wait_closed()

    started = threading.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    started.wait()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
