"""Rules for single texts, their normal form for comparison, and how messages show values and counts."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

_SHOWN_CHARS = 80
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def text_problem(text: str | None, *, max_chars: int) -> tuple[str, str] | None:
    """Return the first rule that the text breaks and why, or None for a usable text.

    Rules: `missing`, `empty` (nothing visible), `too_long` (more than `max_chars` code points),
    `lone_surrogate`, `control_characters` (C0 and C1 other than tab, line feed and carriage return).
    Any script, direction, emoji, joiner or combining mark is fine.
    """
    if text is None:
        return "missing", "no text"
    if not any(map(_is_visible, text)):
        return "empty", "the text has no visible character"
    if len(text) > max_chars:
        return "too_long", f"the text has {len(text)} characters; the limit is {max_chars}"
    if reason := surrogate_problem(text):
        return "lone_surrogate", reason
    if found := _CONTROL.search(text):
        return "control_characters", f"control character {_where(found)}"
    return None


def surrogate_problem(text: str) -> str | None:
    """Return which half of a surrogate pair is unpaired in the text and where, or None.

    Such a text cannot be encoded as UTF-8, so no table can hold it.
    """
    if text.isascii() or not (found := _SURROGATE.search(text)):
        return None
    return f"lone surrogate {_where(found)}"


def normalise(text: str) -> str:
    """Return the text for comparison: NFKC, case folded, runs of white space as one space, none at the ends.

    Idempotent.
    """
    if text.isascii():
        folded = text.lower()
    else:  # folding can undo NFKC and NFKC can bring capitals back: the second round settles both
        once = unicodedata.normalize("NFKC", text).casefold()
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", once).casefold())
    return " ".join(folded.split())


def _is_visible(char: str) -> bool:
    return not char.isspace() and unicodedata.category(char) not in {"Cc", "Cf"}


def _where(found: re.Match[str]) -> str:
    return f"U+{ord(found.group()):04X} at character {found.start() + 1}"


def shown(value: object) -> str:
    """Return what a message shows of a value that is not what it should be: itself, or its type if that is long."""
    text = repr(value)
    if "\n" not in text and len(text) <= _SHOWN_CHARS:
        return text
    kind, package = type(value), type(value).__module__.partition(".")[0]
    return f"a {kind.__name__}" if package == "builtins" else f"a {package}.{kind.__name__}"


def exact(number: float) -> str:
    """Return a number to its last digit, so that it reads back as the same; whole ones without a point."""
    return str(number).removesuffix(".0")


def counted(number: int, noun: str = "row") -> str:
    """Return a number with its noun, in the plural unless it is one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def commonest_first(reasons: Iterable[str]) -> str:
    """Return reasons, each once with its count, the commonest first; a single one without its count."""
    counts = Counter(reasons).most_common()
    return ", ".join(f"{reason} {count:,}" for reason, count in counts) if len(counts) > 1 else "".join(dict(counts))
