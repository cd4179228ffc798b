"""Threads that take pieces of a range."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

from normloom.near_duplicates.hamming import core_count

_PIECE = 1024

Result = TypeVar("Result")


class Share(Protocol):
    """Calls a function on the pieces of a range, and returns what it returned, in order."""

    def __call__(
        self, function: Callable[[int, int], Result], start: int, stop: int, piece: int | None = None, /
    ) -> list[Result]:
        """Call it on pieces of 1,024, or of `piece`."""
        ...


@contextmanager
def sharing(threads: int | None) -> Iterator[Share]:
    """Give a function that has threads (all cores by default) call another on pieces of a range of rows."""
    with ThreadPoolExecutor(threads or core_count()) as pool:

        def share(
            function: Callable[[int, int], Result], start: int, stop: int, piece: int | None = None
        ) -> list[Result]:
            size = piece or _PIECE
            return list(pool.map(lambda begin: function(begin, min(begin + size, stop)), range(start, stop, size)))

        yield share
