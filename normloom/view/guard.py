"""Who may ask: only pages of this server, and only with its token.

The server listens on loopback, which every user and every web page of the machine can reach. A page of another site
has another `Origin`; one that lets its own name resolve to loopback has another `Host`; another user has no token.
The token is sent in a header, never in a cookie, so that no other page makes the browser send it.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_MOST_READ = 1 << 20  # bytes of a request that is refused


def _name_of(host: str) -> str | None:
    """Return the name in a `Host` header, without its port: a forwarded port is another one here."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


async def _read(receive: _Receive) -> None:
    """Read the body of a request that is refused: a client that is still sending would see a reset, not the answer."""
    left = _MOST_READ
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if not message.get("more_body"):  # it ended, or the client has gone
            return


class Guard:
    """ASGI middleware: refuses other hosts, other origins, and requests below `/api/` without the token."""

    def __init__(self, app: _App, *, token: str, hosts: frozenset[str]) -> None:
        self._app = app
        self._token = token
        self._hosts = hosts

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer 403 with the reason, or let the request through and add the headers that confine the page."""
        why = self._refused(scope) if scope["type"] == "http" else "only HTTP is served"

        async def confined(message: _Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        if why is None:
            await self._app(scope, receive, confined)
            return
        if scope["type"] == "http":
            await _read(receive)
        await confined(
            {"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain; charset=utf-8")]}
        )
        await send({"type": "http.response.body", "body": why.encode()})

    def _refused(self, scope: Mapping[str, Any]) -> str | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if _name_of(host) not in self._hosts:
            return f"unknown host {host!r}: open the address that normloom view printed"
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return f"requests of {origin} are not answered"
        if not scope["path"].startswith("/api/"):
            return None
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind == "Bearer" and secrets.compare_digest(given.encode("latin-1"), self._token.encode()):
            return None
        return "the token is missing or wrong: open the address that normloom view printed"
