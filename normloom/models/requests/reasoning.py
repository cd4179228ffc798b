"""What a model thinks before it answers, kept apart from the answer."""

from __future__ import annotations

import re

from normloom.core.models.protocol import Candidate

_OPENING = re.compile(r"\s*<(think|thinking|thought|reasoning)>", re.IGNORECASE)
_CLOSING = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)


def apart(text: str) -> tuple[str, str]:
    """Return what the model thought and what it answered.

    Thinking is what stands in a tag such as <think> that the text begins with: all of it if the tag is never closed,
    as in a text that was cut off. A text without the opening tag but with the closing one was opened by the chat
    template.
    """
    opening = _OPENING.match(text)
    closing = _CLOSING.search(text)
    if closing and (opening or "<" + closing[0][2:] not in text[: closing.start()]):
        return text[opening.end() if opening else 0 : closing.start()].strip(), text[closing.end() :].lstrip()
    return (text[opening.end() :].strip(), "") if opening else ("", text)


def candidate(*, text: str, seed: int, finish: str, tokens_out: int, reasoning: str = "") -> Candidate:
    """Return a candidate of the text as it was written; `reasoning` is what the engine kept apart itself."""
    thought, answer = apart(text)
    told = "\n\n".join(filter(None, [reasoning.strip(), thought]))
    return Candidate(text=answer, seed=seed, finish=finish, tokens_out=tokens_out, reasoning=told)
