"""Answers of one word, read from what a model wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+")


def answer_of(text: str, answers: Sequence[str]) -> int | None:
    """Return the place of the answer that a text gives, None if it gives none or more than one.

    It is the text's first word or, of answers longer than a letter, the only one of them in the text; blanks,
    punctuation and markup do not count. Case does unless no two answers differ in it alone.
    """
    folded = len({answer.casefold() for answer in answers}) == len(answers)

    def spelled(word: str) -> str:
        return word.casefold() if folded else word

    positions = {spelled(answer): position for position, answer in enumerate(answers)}
    words = [spelled(word) for word in _WORD.findall(text)]
    named = {positions[word] for word in words if word in positions and len(word) > 1}
    if len(named) > 1:
        return None
    if words and words[0] in positions:
        return positions[words[0]]
    return named.pop() if named else None
