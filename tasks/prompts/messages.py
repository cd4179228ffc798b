"""Conversations as they come: `messages` of role and content, or ShareGPT's `conversations` of from and value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from normloom.core.models.protocol import Turn
from normloom.core.rows.text import text_problem

COLUMNS = ("messages", "conversations")
ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot"), "assistant"),
}
_BREAK = "\n\n"  # between turns of one role that follow each other, which many chat templates refuse


class Problem(NamedTuple):
    """Why a conversation cannot be used."""

    rule: str
    reason: str


class Conversation(NamedTuple):
    """The last turn of the user, and what was said before it; what an assistant answered to it is left out."""

    prompt: str
    history: tuple[Turn, ...]


def conversation(value: object, *, max_chars: int) -> Conversation | Problem:
    """Return a conversation as a prompt with its history.

    `value` is a list of objects, or such a list as JSON. Parts of type text are joined, and so are turns of one role
    that follow each other; empty system texts are left out. All texts together may have `max_chars` code points.
    Rules: `missing`, `not_messages`, `unknown_role`, `no_user_turn`, `not_text`, and those of `text_problem`.
    """
    if value is None:
        return Problem("missing", "no conversation")
    items = _items(value)
    if isinstance(items, Problem):
        return items
    turns: list[Turn] = []
    for number, (role, item) in enumerate(items, start=1):
        content = _content(item, number)
        if isinstance(content, Problem):
            return content
        if role == "system" and not content.strip():
            continue
        if problem := text_problem(content, max_chars=max_chars):
            return Problem(problem[0], f"turn {number} ({role}): {problem[1]}")
        turns.append(Turn(role, content))
    if (length := sum(len(turn.content) for turn in turns)) > max_chars:
        return Problem(
            "too_long", f"the conversation of {len(turns)} turns has {length} characters; the limit is {max_chars}"
        )
    *history, last = (
        Turn(role, _BREAK.join(turn.content for turn in group))
        for role, group in groupby(turns, lambda turn: turn.role)
    )
    return Conversation(last.content, tuple(history))


def _items(value: object) -> list[tuple[str, Mapping[str, Any]]] | Problem:
    """Return the turns up to the last one of the user, each with its role."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return Problem("not_messages", "expected a list of turns, found text that is not JSON")
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        return Problem("not_messages", "expected a list of turns with role and content, or from and value")
    roles = [_role(item) for item in value]
    if "user" not in roles:
        return Problem("no_user_turn", "no turn of the conversation is the user's")
    items: list[tuple[str, Mapping[str, Any]]] = []
    for number, (role, item) in enumerate(zip(roles, value, strict=True), start=1):
        if "user" not in roles[number - 1 :]:
            break
        if role is None:
            said = item.get("role") or item.get("from")
            return Problem("unknown_role", f"turn {number} has the role {said!r}: expected system, user or assistant")
        items.append((role, item))
    return items


def _role(item: Mapping[str, Any]) -> str | None:
    said = item.get("role") or item.get("from")
    return ROLES.get(said.strip().casefold()) if isinstance(said, str) else None


def _content(item: Mapping[str, Any], number: int) -> str | Problem:
    content = item.get("content") if item.get("content") is not None else item.get("value")
    parts = content if isinstance(content, Sequence) and not isinstance(content, str) else [content]
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, Mapping) and part.get("type") in (None, "text") else part
        if text is not None and not isinstance(text, str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            return Problem("not_text", f"turn {number} has content of type {kind!r}, which is not text")
        texts.append(text or "")
    return "\n".join(texts)
