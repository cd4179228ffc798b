from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.outlook import Forecast, about
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.planning.plan import plan
from normloom.store.store import Store
from normloom.testing.toy import echo_stage, runner, words_stage
from normloom.workers.resources import Resources


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    """Tables of words and of their echoes in three parts, two rows each."""
    loom = runner(Store(tmp_path_factory.mktemp("store")))
    words = words_stage(*"abcdef")
    first, _ = loom.run(words, [], [])
    return [first, loom.run(echo_stage(words), [first.ref], [])[0]]


def test_time_left_goes_from_what_earlier_tables_tell_to_what_this_one_shows(tables: list[Manifest]) -> None:
    clock = Clock()
    forecast = Forecast("toy", {"words": 10.0, "echo": 30.0}, clock)
    assert str(forecast.outlook()) == "0 of 2 tables, 0% of the work, about 40 s left"
    forecast.begin("words", total=0, done=0)
    forecast.end(tables[0])
    assert str(forecast.outlook()) == "1 of 2 tables, 25% of the work, about 30 s left"
    forecast.begin("echo", total=6, done=0)
    clock.now += 60
    forecast.within("echo", 0, 1)
    forecast.advance("echo", tables[1].parts[0])
    # A third took 60 s, so all of it takes 180 s; what it took before tells two thirds: 1/3 * 180 + 2/3 * 30 = 80.
    assert forecast.outlook().seconds == pytest.approx(80 * 2 / 3)
    assert forecast.at_work() == [("echo", 2, 6)]
    forecast.within("echo", 1, 1)
    assert forecast.outlook().share == pytest.approx((10 + 30 * 3 / 6) / 40)
    forecast.end(tables[1])
    assert str(forecast.outlook()) == "2 of 2 tables, 100% of the work"
    assert forecast.at_work() == []


def test_rows_that_an_earlier_build_has_done_say_nothing_of_the_speed(tables: list[Manifest]) -> None:
    clock = Clock()
    forecast = Forecast("toy", {"echo": None}, clock)
    assert str(forecast.outlook()) == "0 of 1 tables, 0% of the work"
    forecast.begin("echo", total=6, done=2)
    assert forecast.outlook().share == 0
    clock.now += 10
    forecast.advance("echo", tables[1].parts[1])
    assert str(forecast.outlook()) == "0 of 1 tables, 50% of the work, about 10 s left"


def test_what_nothing_tells_of_makes_the_time_a_least_one() -> None:
    forecast = Forecast("toy", {"words": 90.0, "echo": None})
    assert str(forecast.outlook()) == "0 of 2 tables, 0% of the work, at least 2 min left"


def test_a_build_that_reuses_all_is_a_matter_of_tables(tables: list[Manifest]) -> None:
    forecast = Forecast("toy", {"words": 0.0, "echo": 0.0})
    forecast.end(tables[0])
    assert str(forecast.outlook()) == "1 of 2 tables, 50% of the work, under 1 s left"


@given(
    expected=st.lists(st.none() | st.floats(0, 1e6), min_size=1, max_size=5),
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 10), st.floats(0, 100)), max_size=20),
)
def test_the_share_never_leaves_its_bounds_and_time_left_is_never_negative(
    expected: list[float | None], steps: list[tuple[int, int, float]]
) -> None:
    clock = Clock()
    forecast = Forecast("toy", {f"s{place}": seconds for place, seconds in enumerate(expected)}, clock)
    for place in range(len(expected)):
        forecast.begin(f"s{place}", total=10, done=0)
    share = 0.0
    for place, rows, seconds in sorted(steps, key=lambda step: step[1]):
        clock.now += seconds
        forecast.within(f"s{place % len(expected)}", 0, rows)
        outlook = forecast.outlook()
        assert share <= outlook.share + 1e-9 <= 1 + 2e-9
        assert outlook.seconds >= 0
        share = outlook.share


def test_a_forecast_goes_by_the_plan(tmp_path: Path) -> None:
    def planned(*ends: Stage) -> Forecast:
        return Forecast.of(plan(ends, system="toy", store=store, resources=Resources(actors=0)))

    store = Store(tmp_path)
    words = words_stage(*"abcdef")
    stages = (words, echo_stage(words))
    assert planned(*stages).outlook().untimed
    loom = runner(store)
    first, _ = loom.run(words, [], [])
    made, _ = loom.run(stages[1], [first.ref], [])
    assert planned(*stages).outlook().seconds == 0  # reused
    longer = words_stage(*"abcdefgh")
    again = planned(longer, echo_stage(longer)).outlook()
    worked = sum(part.seconds for manifest in (first, made) for part in manifest.parts)
    assert not again.untimed
    assert again.seconds > worked  # for more rows, and with the load of the model


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.3, "under 1 s"), (12.4, "12 s"), (250, "4 min"), (7900, "2 h 11 min")]
)
def test_durations_are_told_as_roughly_as_they_are_known(seconds: float, text: str) -> None:
    assert about(seconds) == text
