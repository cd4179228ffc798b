from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.contract import Contract
from normloom.testing.toy import Echo, echo
from normloom.workers.actors.dispatch import STRAGGLER_BASIS, STRAGGLER_SECONDS, Dispatch
from normloom.workers.parts.job import PartJob

FREE: Counter[str] = Counter()
JOB = PartJob(
    system="toy",
    stage="echo",
    function=echo,
    arguments=Echo(),
    contract=Contract(columns={"word": pl.String()}),
    directory=Path("/nowhere"),
    writer="w",
    index=0,
    start=0,
    stop=1,
    inputs=(),
    sides=(),
)


def jobs(count: int) -> list[PartJob]:
    return [replace(JOB, index=index) for index in range(count)]


def give_all(dispatch: Dispatch[str], actors: list[str], now: float = 0.0) -> dict[str, list[str]]:
    """Give out what can be given and return the tickets of each actor, `part.copy`."""
    tickets: dict[str, list[str]] = {actor: [] for actor in actors}
    while found := dispatch.next(actors, FREE, now):
        actor, job = found
        ticket = f"{job.index}.{job.copy}"
        dispatch.given(ticket, actor, job, now)
        tickets[actor].append(ticket)
    return tickets


def test_parts_are_spread_before_any_waits_behind_another() -> None:
    dispatch: Dispatch[str] = Dispatch(jobs(5))
    assert give_all(dispatch, ["a", "b"]) == {"a": ["0.0", "2.0"], "b": ["1.0", "3.0"]}
    assert dispatch.waiting == 1
    dispatch.done("1.0", 1.0, now=1.0)
    assert give_all(dispatch, ["a", "b"]) == {"a": [], "b": ["4.0"]}


def test_an_engine_that_works_at_several_gets_one_more_than_that() -> None:
    dispatch: Dispatch[str] = Dispatch(jobs(9), at_once=3)
    assert give_all(dispatch, ["a"]) == {"a": ["0.0", "1.0", "2.0", "3.0"]}


def test_actors_that_are_still_to_come_find_parts_left() -> None:
    dispatch: Dispatch[str] = Dispatch(jobs(6), at_once=8, actors=3)
    assert give_all(dispatch, ["a"]) == {"a": ["0.0", "1.0", "2.0"]}
    assert give_all(dispatch, ["a", "b", "c"]) == {"a": [], "b": ["3.0", "5.0"], "c": ["4.0"]}


def test_alone_means_one_at_a_time_and_no_copies() -> None:
    dispatch: Dispatch[str] = Dispatch(jobs(2), at_once=3, alone=True)
    assert give_all(dispatch, ["a", "b", "c"], now=1000.0) == {"a": ["0.0"], "b": ["1.0"], "c": []}


def test_nothing_is_given_once_the_work_is_halted() -> None:
    halted: list[bool] = []
    dispatch: Dispatch[str] = Dispatch(jobs(3), halted=lambda: bool(halted))
    assert dispatch.next(["a"], FREE, 0.0) == ("a", jobs(1)[0])
    halted.append(True)
    assert dispatch.next(["a"], FREE, 0.0) is None


def test_an_idle_actor_takes_what_waits_behind_another() -> None:
    dispatch: Dispatch[str] = Dispatch(jobs(4))
    give_all(dispatch, ["a", "b"])
    dispatch.done("1.0", 1.0, now=1.0)
    dispatch.done("3.0", 1.0, now=2.0)
    assert give_all(dispatch, ["a", "b"], now=2.0) == {"a": [], "b": ["2.1"]}
    job, copies = dispatch.done("2.1", 1.0, now=3.0)
    assert (job.index, copies) == (2, {"2.0": "a"})
    assert dispatch.flying == ["0.0"]


def late(now: float) -> dict[str, list[str]]:
    """Return what is given at `now` when three parts of ten seconds are done and the fourth runs since second 10."""
    dispatch: Dispatch[str] = Dispatch(jobs(4), at_once=2)
    assert give_all(dispatch, ["a", "b"]) == {"a": ["0.0", "2.0"], "b": ["1.0", "3.0"]}
    for ticket in ("0.0", "1.0", "2.0"):
        dispatch.done(ticket, 10.0, now=10.0)
    return give_all(dispatch, ["a", "b"], now)


def test_a_part_that_takes_twice_as_long_as_the_others_is_copied_once() -> None:
    assert late(19.0) == {"a": [], "b": []}
    assert late(20.5) == {"a": ["3.1"], "b": []}


def test_short_parts_are_not_copied_over_a_moment_s_delay() -> None:
    dispatch: Dispatch[str] = Dispatch(jobs(STRAGGLER_BASIS + 1), at_once=2)
    give_all(dispatch, ["a", "b"])
    for index in range(STRAGGLER_BASIS):
        dispatch.done(f"{index}.0", 0.1, now=0.1)
    assert give_all(dispatch, ["a", "b"], now=STRAGGLER_SECONDS - 0.1) == {"a": [], "b": []}
    assert give_all(dispatch, ["a", "b"], now=STRAGGLER_SECONDS + 0.1)["a"] == [f"{STRAGGLER_BASIS}.1"]


def test_an_actor_that_is_still_at_a_lost_race_gets_no_copy() -> None:
    dispatch: Dispatch[str] = Dispatch(jobs(2))
    give_all(dispatch, ["a"])
    assert dispatch.next(["a", "b"], Counter({"b": 1}), 0.0) is None
    assert dispatch.next(["a", "b"], FREE, 0.0) is not None


def test_death_is_charged_to_what_was_run_and_the_queued_waits_again() -> None:
    dispatch: Dispatch[str] = Dispatch(jobs(5), at_once=2)
    give_all(dispatch, ["a"])
    assert [job.index for job in dispatch.lost("a")] == [0, 1]
    assert dispatch.waiting == 3
    assert give_all(dispatch, ["b"]) == {"b": ["2.0", "3.0", "4.0"]}  # first what had been queued


def test_a_queued_part_that_moved_up_is_charged_too() -> None:
    dispatch: Dispatch[str] = Dispatch(jobs(2))
    give_all(dispatch, ["a"])
    dispatch.done("0.0", 1.0, now=1.0)
    assert [job.index for job in dispatch.lost("a")] == [1]


def test_a_part_of_which_a_copy_runs_elsewhere_is_not_lost() -> None:
    dispatch: Dispatch[str] = Dispatch(jobs(4))
    give_all(dispatch, ["a", "b"])
    dispatch.done("1.0", 1.0, now=1.0)
    dispatch.done("3.0", 1.0, now=2.0)
    assert give_all(dispatch, ["a", "b"], now=2.0)["b"] == ["2.1"]
    assert [job.index for job in dispatch.lost("a")] == [0]
    assert (dispatch.waiting, dispatch.flying) == (0, ["2.1"])


@pytest.mark.parametrize("at_once", [1, 3])
@given(data=st.data())
def test_every_part_comes_back_once_whatever_happens(at_once: int, data: st.DataObject) -> None:
    dispatch: Dispatch[str] = Dispatch(jobs(data.draw(st.integers(0, 12))), at_once=at_once)
    total, now = dispatch.waiting, 0.0
    back: list[int] = []
    actors = ["a", "b", "c"]
    while dispatch:
        now += data.draw(st.floats(0, 30))
        give_all(dispatch, actors, now)
        ticket = data.draw(st.sampled_from(dispatch.flying))
        if data.draw(st.integers(0, 3)) == 0:
            back += [job.index for job in dispatch.lost(dispatch.actor_of(ticket))]
        else:
            back.append(dispatch.done(ticket, 1.0, now)[0].index)
    assert sorted(back) == list(range(total))
