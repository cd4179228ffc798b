"""The server of the page: on loopback by default, with a token made when it starts."""

from __future__ import annotations

import secrets
import socket
import threading
from types import TracebackType
from typing import Self

import uvicorn

from normloom.core.errors import UsageError
from normloom.settings.faces.chat_face import Conversation
from normloom.store.store import Store
from normloom.view.app import view_app

LOOPBACK = "127.0.0.1"


class ViewServer:
    """Serves the page of a store; `url` holds the token behind `#`, which browsers send to nobody.

    With `who` the page takes answers to queues of labels, under this name; without, it only reads. With `chat` it shows
    this conversation, too.

    Raises UsageError if the port is taken.
    """

    def __init__(
        self,
        store: Store,
        *,
        who: str | None = None,
        chat: Conversation | None = None,
        host: str = LOOPBACK,
        port: int = 0,
    ) -> None:
        self.store = store
        token = secrets.token_urlsafe(24)
        self._socket = _bound(host, port)
        hosts = frozenset({LOOPBACK, "localhost", host})
        app = view_app(store, token=token, who=who, chat=chat, hosts=hosts)
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self.url = f"http://{host}:{self._socket.getsockname()[1]}/#token={token}"

    def run(self) -> None:
        """Serve until interrupted."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()

    def __enter__(self) -> Self:
        """Serve in a thread."""
        self._thread = threading.Thread(target=self.run, name="normloom view", daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            self._thread.join(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._server.should_exit = True
        self._thread.join()


def _bound(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port") from error
