"""The context of log lines: system, build and stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_ABOUT: ContextVar[Mapping[str, str]] = ContextVar("about", default={})  # noqa: B039  # never changed, only replaced


@contextmanager
def logged_as(**about: str) -> Iterator[None]:
    """Set the context of lines logged here, and in threads that copy this context."""
    token = _ABOUT.set({**_ABOUT.get(), **about})
    try:
        yield
    finally:
        _ABOUT.reset(token)


def about() -> Mapping[str, str]:
    """Return the context of lines logged here."""
    return _ABOUT.get()
