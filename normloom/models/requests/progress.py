"""How much of its requests a model has done, reported while it works.

An engine tells in the thread that called it, or hands `current_teller()` to the thread that works for it. Nobody
need listen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Teller = Callable[[float], None]

_listener: ContextVar[Teller | None] = ContextVar("listener", default=None)


def _unheard(share: float) -> None:
    pass


def current_teller() -> Teller:
    """Return what to call with the share done (0 to 1) of what the model was asked."""
    return _listener.get() or _unheard


@contextmanager
def listening(listener: Teller) -> Iterator[None]:
    """Let `listener` hear from models that are called in this context."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
