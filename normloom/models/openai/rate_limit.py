"""How fast an endpoint may be asked: even spacing of what it allows in a minute, and the waits that it asks for."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_RESET = re.compile(r"ratelimit-reset(-requests|-tokens)?$|ratelimit-(requests|tokens)-reset$")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SAID = re.compile(
    r"(?:try again in|retry in|retry after|retrydelay\W+)\s*((?:\d+(?:\.\d+)?\s?(?:ms|h|m|s)\w*\s?)+)", re.IGNORECASE
)
_EPOCH, _EPOCH_MS = 1e9, 1e12  # numbers from which a time is meant, not a span


class Pace:
    """Lets `per_minute` units pass each minute, evenly and in the order of asking; None sets no limit.

    Even spacing holds whatever span an endpoint counts over, so nothing is saved up for a burst. Who knows only
    later what was used reserves what is expected and settles the difference. For one event loop.
    """

    def __init__(self, per_minute: int | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds_each = 60 / per_minute if per_minute else 0.0
        self._clock = clock
        self._free_at = clock()

    def reserve(self, units: float = 1) -> float:
        """Take the next place and return the seconds until its turn."""
        now = self._clock()
        turn = max(self._free_at, now)
        self._free_at = turn + units * self._seconds_each
        return turn - now

    def settle(self, units: float) -> None:
        """Add units that were used beyond those reserved; a negative number gives back."""
        self._free_at += units * self._seconds_each

    def hold(self, seconds: float) -> None:
        """Let nobody pass for this many seconds."""
        self._free_at = max(self._free_at, self._clock() + seconds)

    async def wait(self, units: float = 1) -> None:
        """Take the next place and wait for its turn."""
        await asyncio.sleep(self.reserve(units))


def seconds_asked(headers: Mapping[str, str], said: str = "") -> float:
    """Return the seconds for which a refusal asks to wait, 0 if it does not say.

    By order: `retry-after-ms`, `retry-after` (seconds or a date), the reset of an exhausted limit
    (`x-ratelimit-reset-requests`, `-tokens` and their kin: a span such as `1m30s`, or a time), and what the error says
    ("try again in 6.5s").
    """
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    with suppress(ValueError, KeyError):
        return float(lower["retry-after-ms"]) / 1000
    if stated := lower.get("retry-after"):
        return max(_seconds(stated), 0.0)
    resets = [*_resets(lower)]
    if resets:
        return max(*resets, 0.0)
    found = _SAID.search(said)
    return _seconds(found[1]) if found else 0.0


def _resets(headers: Mapping[str, str]) -> Iterator[float]:
    """Yield the seconds until each exhausted limit is reset."""
    for name, value in headers.items():
        if _RESET.search(name):
            remaining = headers.get(name.replace("reset", "remaining"), "0")
            if remaining in ("", "0"):
                yield _seconds(value)


def _seconds(stated: str) -> float:
    """Return a span in seconds: of `1m30s`, of a number, or until a time; 0 for what is none of them."""
    stated = stated.strip()
    with suppress(ValueError):
        number = float(stated)
        if number >= _EPOCH:
            return number / (1000 if number >= _EPOCH_MS else 1) - time.time()
        return number
    spans = _DURATION.findall(stated.replace(" ", ""))
    if spans and stated[0].isdigit() and not re.match(r"\d{4}-", stated):
        return sum(float(number) * _UNITS[unit] for number, unit in spans)
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        with suppress(ValueError, TypeError):  # no date, or one without a time zone
            return (read(stated) - datetime.now(UTC)).total_seconds()
    return 0.0
