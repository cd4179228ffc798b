"""Coroutines run side by side."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from normloom.models.requests.progress import Teller

_T = TypeVar("_T")


async def together(work: Iterable[Coroutine[Any, Any, _T]], *, tell: Teller | None = None) -> list[_T]:
    """Return all results in order; the first error ends the rest. `tell` gets the share that has come."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
            if tell:
                come = itertools.count(1)
                for task in tasks:
                    task.add_done_callback(lambda _: tell(next(come) / len(tasks)))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
