"""Whether Prefect's server answers: a build continues without it, and says so once."""

from __future__ import annotations

import http
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

TRIES_AGAIN = 2  # 2 and 4 seconds apart; with Prefect's own 5 each request to a server that is gone takes a minute
ASK_AGAIN_SECONDS = 30.0  # of a server that is gone, if nothing else finds out that it is back

log = logging.getLogger(__name__)
_lost = threading.Event()


def server_is_lost() -> bool:
    """Return whether the server of this process's builds did not answer when it was last asked."""
    return _lost.is_set()


class ServerReach:
    """What a build knows of its server; its threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost: float | None = None

    def worth_trying(self) -> bool:
        """Return whether the server answered when it was last asked, or that is a while ago."""
        lost = self._lost
        return lost is None or time.monotonic() - lost > ASK_AGAIN_SECONDS

    def lost(self, error: Exception) -> None:
        """Note that the server does not answer."""
        with self._lock:
            first, self._lost = self._lost is None, time.monotonic()
            _lost.set()
        if first:
            log.warning(
                "Prefect's server does not answer (%s): the build continues and its tables are kept, but the UI "
                "does not show them until it answers",
                str(error).strip().partition("\n")[0] or type(error).__name__,
            )

    def back(self) -> None:
        """Note that the server answers."""
        with self._lock:
            again, self._lost = self._lost is not None, None
            _lost.clear()
        if again:
            log.warning("Prefect's server answers again")


def is_busy(error: Exception) -> bool:
    """Return whether the server answered that it cannot answer now, as Prefect's does while its database is locked."""
    return getattr(getattr(error, "response", None), "status_code", None) == http.HTTPStatus.SERVICE_UNAVAILABLE


@contextmanager
def few_tries(most: int = TRIES_AGAIN) -> Iterator[None]:
    """Let Prefect's client repeat a failing request at most this many times, in this thread and those it starts.

    Prefect's own `temporary_settings` reads all settings again, 25 ms for each page of a build.
    """
    from prefect.context import SettingsContext, get_settings_context

    here = get_settings_context()
    client = here.settings.client
    fewer = client.model_copy(update={"max_retries": min(client.max_retries, most)})
    with SettingsContext(profile=here.profile, settings=here.settings.model_copy(update={"client": fewer})):
        yield
