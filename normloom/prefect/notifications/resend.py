"""A notification that a receiver refuses for now is sent again by the Prefect server.

The server acts on two events at a time, and its automations also mark runs that died, so later tries wait in tasks of
their own. They are in memory: if the server ends, they are lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from prefect.blocks.core import Block

log = logging.getLogger("normloom.notify")

DELAYS = (5.0, 60.0, 300.0, 1_800.0, 7_200.0)  # seconds before each further try; greylists want some minutes
_waiting: set[asyncio.Task[None]] = set()  # an event loop holds its tasks weakly


@dataclass(frozen=True)
class Refusal:
    """Why a receiver did not take a message (no secrets), whether it may later, and the seconds it asks to wait."""

    why: str
    passing: bool = True
    seconds: float = 0.0


Send = Callable[[], Awaitable[Refusal | None]]


def resend(block: Block, send: Send, refusal: Refusal) -> None:
    """Let `send` try again until it returns None; to be called in the event loop of the server that has the block."""
    name = str(block._block_document_name)  # noqa: SLF001  # Prefect tells it in no other way
    task = asyncio.create_task(try_again(name, send, refusal, partial(_has, block)))
    _waiting.add(task)
    task.add_done_callback(_waiting.discard)


async def try_again(
    name: str, send: Send, refusal: Refusal, wanted: Callable[[], Awaitable[bool]], delays: Sequence[float] = DELAYS
) -> None:
    """Try after each delay (seconds) until a message is taken, refused for good, or not `wanted` any more."""
    for delay in delays:
        if not refusal.passing:
            break
        seconds = max(delay, min(refusal.seconds, DELAYS[-1]))
        log.warning("%s refused a message (%s): trying again in %g seconds", name, refusal.why, seconds)
        await asyncio.sleep(seconds)
        if not await wanted():
            return
        outcome = await send()
        if outcome is None:
            return
        refusal = outcome
    log.error("%s refused a message (%s): it is not sent again", name, refusal.why)


async def _has(block: Block) -> bool:
    """Return whether the server still has a block: it goes when its receiver is removed or replaced."""
    from prefect.server.api.clients import OrchestrationClient  # by which automations read blocks

    document = block._block_document_id  # noqa: SLF001
    assert document  # the server loads what it acts with
    async with OrchestrationClient() as client:
        return (await client.read_block_document_raw(document)).status_code != HTTPStatus.NOT_FOUND
