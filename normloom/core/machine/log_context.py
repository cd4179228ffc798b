"""What a line of the log is about: the system, the build and the stage that are at work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_ABOUT: ContextVar[Mapping[str, str]] = ContextVar("about", default={})  # noqa: B039  # never changed, only replaced


@contextmanager
def logged_as(**about: str) -> Iterator[None]:
    """Say what lines that are logged here, and in threads that copy this context, are about."""
    token = _ABOUT.set({**_ABOUT.get(), **about})
    try:
        yield
    finally:
        _ABOUT.reset(token)


def about() -> Mapping[str, str]:
    """Return what lines that are logged here are about."""
    return _ABOUT.get()
