"""Which records of a source are read: the first ones, or a sample."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from itertools import islice

from normloom.readers.collect import Numbered
from normloom.readers.options import ReadOptions


def chosen(records: Iterable[Numbered], reading: ReadOptions) -> Iterator[Numbered]:
    """Yield the first `limit` records or, in order, a sample of them; memory holds the sample at most."""
    taken = islice(records, reading.limit)
    if reading.sample is None:
        yield from taken
        return
    drawn = heapq.nsmallest(reading.sample, taken, key=lambda numbered: (_draw(numbered[0], reading.seed), numbered[0]))
    yield from sorted(drawn, key=lambda numbered: numbered[0])


def chosen_numbers(total: int, reading: ReadOptions) -> list[int] | None:
    """Return the numbers of the records out of the total that `chosen` takes; None for all."""
    first = min(total, reading.limit or total)
    if reading.sample is None:
        return None if first == total else list(range(1, first + 1))
    return sorted(heapq.nsmallest(reading.sample, range(1, first + 1), key=lambda n: (_draw(n, reading.seed), n)))


def _draw(number: int, seed: int) -> bytes:
    """Return a record's lot: it depends on seed and number alone, so that all formats give the same sample."""
    return hashlib.blake2b(f"{seed}\x1f{number}".encode(), digest_size=8).digest()
