from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from normloom.models.openai.rate_limit import Pace, seconds_asked


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_units_are_spaced_evenly() -> None:
    pace = Pace(60, clock=Clock())
    assert [pace.reserve() for _ in range(4)] == [0, 1, 2, 3]
    assert [pace.reserve(10), pace.reserve()] == [4, 14]


def test_idle_time_is_not_saved_up() -> None:
    clock = Clock()
    pace = Pace(60, clock=clock)
    clock.now += 1000
    assert [pace.reserve() for _ in range(3)] == [0, 1, 2]
    clock.now += 2.5
    assert pace.reserve() == pytest.approx(0.5)


def test_what_is_settled_moves_the_next_turn() -> None:
    pace = Pace(120, clock=Clock())
    pace.reserve(10)
    pace.settle(-4)
    assert pace.reserve(10) == pytest.approx(3)
    pace.settle(6)
    assert pace.reserve() == pytest.approx(11)


def test_without_a_limit_nobody_waits() -> None:
    pace = Pace(None, clock=Clock())
    assert [pace.reserve(1e9) for _ in range(3)] == [0, 0, 0]


def test_those_who_wait_go_in_the_order_of_asking() -> None:
    gone: list[int] = []

    async def go(pace: Pace, number: int) -> None:
        await pace.wait()
        gone.append(number)

    async def race() -> None:
        pace = Pace(6000)
        await asyncio.gather(*(go(pace, number) for number in range(8)))

    asyncio.run(race())
    assert gone == list(range(8))


def test_all_are_held_for_as_long_as_is_asked() -> None:
    clock = Clock()
    pace = Pace(None, clock=clock)
    assert pace.reserve() == 0
    pace.hold(5)
    clock.now += 2
    pace.hold(1)  # a shorter one takes nothing away
    assert pace.reserve() == pytest.approx(3)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"Retry-After": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": ""}, 0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-remaining-tokens": "900", "x-ratelimit-reset-tokens": "6m0s"}, 0),
        ({"X-RateLimit-Reset": "12"}, 12),
    ],
)
def test_the_wait_that_headers_ask_for(headers: dict[str, str], seconds: float) -> None:
    assert seconds_asked(headers) == pytest.approx(seconds)


@pytest.mark.parametrize("name", ["retry-after", "x-ratelimit-reset", "anthropic-ratelimit-tokens-reset"])
def test_the_wait_until_a_time(name: str) -> None:
    then = datetime.now(UTC) + timedelta(hours=1)
    stated = [then.isoformat(), format_datetime(then, usegmt=True), f"{then.timestamp()}", f"{then.timestamp() * 1000}"]
    for value in stated:
        assert 3500 < seconds_asked({name: value}) <= 3601, value


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("Rate limit reached. Please try again in 6.5s. Visit ...", 6.5),
        ("Please try again in 120ms.", 0.12),
        ("try again in 1m30s", 90),
        ("Please retry in 34.07s.", 34.07),
        ("{'@type': 'RetryInfo', 'retryDelay': '34s'}", 34),
        ("slow down", 0),
    ],
)
def test_the_wait_that_an_error_speaks_of(said: str, seconds: float) -> None:
    assert seconds_asked({}, said) == pytest.approx(seconds)
    assert seconds_asked({"retry-after": "1"}, said) == 1
