from __future__ import annotations

import asyncio

import pytest

from normloom.models.rate_limit import Pace


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
