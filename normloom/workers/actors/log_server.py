"""The place where Prefect takes logs, reached without importing Prefect: that takes most of a second in each actor."""

from __future__ import annotations

import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, cast
from uuid import uuid4

BUSY: frozenset[int] = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,  # SQLite is locked
    }
)
FIRST_PAUSE = 0.25  # seconds, each next one four times as long: a locked SQLite is soon free, a server starts slowly
LAST_PAUSE = 0.5
_PREFECT_S_OWN = {"user-agent", "prefect-csrf-token", "prefect-csrf-client"}


@dataclass(frozen=True)
class LogServer:
    """A Prefect API as Prefect's client is set to reach it, small enough to travel with a part.

    `headers` may hold a password: they travel as data, out of sight of process listings and of Ray's own records, and
    are not shown. `certificates` names a file, None means those that httpx knows; a request may take `seconds`.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    certificates: str | None = None
    verify: bool = True
    seconds: float = 60.0
    retries: int = 5
    retried: frozenset[int] = BUSY

    @classmethod
    def current(cls) -> Self:
        """Return the API that Prefect uses in this process, even if Prefect started the server for this run."""
        from prefect.client.orchestration import get_client
        from prefect.settings import get_current_settings

        with get_client(sync_client=True) as client:
            url = str(client.api_url)
        settings = get_current_settings()
        api, ours, again = settings.api, settings.client, settings.client.retry_extra_codes
        headers = {name: text for name, text in ours.custom_headers.items() if name.lower() not in _PREFECT_S_OWN}
        if api.auth_string:
            headers["Authorization"] = f"Basic {b64encode(api.auth_string.get_secret_value().encode()).decode()}"
        elif api.key:
            headers["Authorization"] = f"Bearer {api.key.get_secret_value()}"
        return cls(
            url.rstrip("/"),
            headers,
            certificates=api.ssl_cert_file,
            verify=not api.tls_insecure_skip_verify,
            seconds=api.request_timeout,
            retries=ours.max_retries,
            retried=BUSY.union(cast("set[int]", again)),  # a set once it is validated,
        )


class LogClient:
    """Sends lines of logs to a server; a busy one is asked again, later each time.

    Once `last` is set, which ends a pause too, all pauses are short.
    """

    def __init__(self, server: LogServer, last: threading.Event | None = None) -> None:
        import httpx

        verify: bool | ssl.SSLContext = server.verify
        if verify and server.certificates:
            verify = ssl.create_default_context(cafile=server.certificates)
        self._server = server
        self._last = last or threading.Event()
        self._http = httpx.Client(
            headers=dict(server.headers), verify=verify, timeout=server.seconds, follow_redirects=True
        )
        self._answered = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def send(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Send lines as Prefect's API has them; raises httpx.HTTPError if the server does not take them."""
        import httpx

        for attempt in range(self._server.retries + 1):
            last, pause = attempt == self._server.retries, FIRST_PAUSE * 4.0**attempt
            try:
                answer = self._http.post(f"{self._server.url}/logs/", json=lines)
            except httpx.TransportError as error:
                if last or (isinstance(error, httpx.ConnectError) and not self._answered):
                    raise
            else:
                self._answered = True
                if answer.status_code == HTTPStatus.FORBIDDEN and not last:
                    self._identify()
                    continue
                if last or answer.status_code not in self._server.retried:
                    answer.raise_for_status()
                    return
                wanted = answer.headers.get("Retry-After", "")
                pause = float(wanted) if wanted.isdecimal() else pause
            if self._last.wait(pause):
                time.sleep(min(pause, LAST_PAUSE))

    def _identify(self) -> None:
        """Get the token without which a server that is protected against forged requests takes none."""
        client = str(uuid4())
        answer = self._http.get(f"{self._server.url}/csrf-token", params={"client": client}).raise_for_status()
        self._http.headers.update({"Prefect-Csrf-Token": answer.json()["token"], "Prefect-Csrf-Client": client})
