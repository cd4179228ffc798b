"""The chat face of a system: how a user talks with a model over its tables, if the system has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from normloom.store.store import Store


class Conversation(Protocol):
    """One user's talk. What is said, corrected and deleted is stored when the call returns; all raise UsageError."""

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
        """Say what a fact is instead; without values, that it is none."""
        ...

    def reach(self, row: str) -> dict[str, Any]:
        """Return what would be deleted with a message or a fact."""
        ...

    def delete(self, row: str) -> dict[str, Any]:
        """Delete a message or a fact with all that came of it, and return what that was."""
        ...

    def close(self) -> None:
        """Let go of the model."""
        ...


ChatFace = Callable[[Any, Store, str], Conversation]  # settings, store, and who talks
