"""Even spacing of what an endpoint allows so much of in a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


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

    async def wait(self, units: float = 1) -> None:
        """Take the next place and wait for its turn."""
        await asyncio.sleep(self.reserve(units))
