"""The chat of a system, if it has one: a user talks with a model about its tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from normloom.store.store import Store


class Conversation(Protocol):
    """One user's conversation. Messages, corrections and deletions are stored on return; all raise UsageError."""

    def state(self) -> dict[str, Any]:
        """Return all that a page shows, as JSON types; `version` changes whenever it does."""
        ...

    def say(self, text: str, *, task: str, key: str) -> None:
        """Take a message; the same `key` twice is one message. The reply follows."""
        ...

    def ask_again(self, turn: str) -> None:
        """Ask for a reply to a message whose reply failed or was interrupted."""
        ...

    def correct(self, fact: str, values: Sequence[str]) -> None:
        """Correct a fact; without values, reject it."""
        ...

    def reach(self, row: str) -> dict[str, Any]:
        """Return what would be deleted with a message or a fact."""
        ...

    def delete(self, row: str) -> dict[str, Any]:
        """Delete a message or a fact with everything derived from it, and return what was deleted."""
        ...

    def close(self) -> None:
        """Release the model."""
        ...


ChatFace = Callable[[Any, Store, str], Conversation]  # settings, store, and who talks
