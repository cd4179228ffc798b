"""Receivers of notifications on loopback: a web server that is posted to, and a mail server that asks for a login."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as Mailbox
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@dataclass
class Web:
    """What was posted; requests are answered, after a pause in seconds, with the next of `refusals`, then `status`."""

    url: str
    status: int = 200
    refusals: list[int] = field(default_factory=list)
    pause: float = 0.0
    posts: list[dict[str, Any]] = field(default_factory=list)

    def of(self, news: str) -> list[dict[str, Any]]:
        return [post for post in self.posts if post["news"] == news]


@contextmanager
def web_server(port: int = 0) -> Iterator[Web]:
    web = Web(url="")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            web.posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            time.sleep(web.pause)
            self.send_response(web.refusals.pop(0) if web.refusals else web.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        web.url = f"http://127.0.0.1:{server.server_port}/hook/s3cret-path"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield web
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Post:
    """A post office: what it was given by whoever knows the password; the first mails get the answers `refusals`."""

    address: str
    user: str = "normloom"
    password: str = "s3cret/p@ss"
    refusals: list[str] = field(default_factory=list)
    mails: list[Message] = field(default_factory=list)


@contextmanager
def mail_server() -> Iterator[Post]:
    port = free_port()
    post = Post(f"127.0.0.1:{port}")

    def authenticate(
        server: SMTP, session: Session, envelope: Envelope, mechanism: str, login: LoginPassword
    ) -> AuthResult:
        del server, session, envelope, mechanism
        known = login == LoginPassword(post.user.encode(), post.password.encode())
        return AuthResult(success=known, handled=False)

    class Kept(Mailbox):
        async def handle_MAIL(  # noqa: N802  # aiosmtpd's name
            self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
        ) -> str:
            del server, options
            envelope.mail_from = address
            if not session.authenticated:
                return "530 5.7.0 Authentication required"
            return post.refusals.pop(0) if post.refusals else "250 OK"

        def handle_message(self, message: Message) -> None:
            post.mails.append(message)

    controller = Controller(Kept(), hostname="127.0.0.1", port=port, authenticator=authenticate, auth_require_tls=False)
    controller.start()
    try:
        yield post
    finally:
        controller.stop()
