"""Which rows look up side rows that are others than before, against a look at each row's own."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import normloom as nl
from normloom.core.stage import Output, Stage
from normloom.core.table import Manifest
from normloom.planning.looked_up import rows_with_others
from normloom.store.layout import MANIFEST
from normloom.store.store import Store
from normloom.testing import made

Told = tuple[tuple[str, str | None], ...]  # rows of two columns, of which the first alone decides their id
LOOKS_UP = ("who", "home")
WHO = ("ann", "ben", "dea", "ann", "eli", "cem", "ben")


def listed(told: Told, first: str, second: str) -> Output:
    rows = pl.DataFrame(told, schema=dict.fromkeys((first, second), pl.String), orient="row")
    known = rows.with_columns(content=first, parents=pl.lit([], dtype=pl.List(pl.String)))
    return Output(rows=known, attempts=known.height)


@nl.step(makes={"who": pl.String, "home": pl.String})
def people(*, told: Told) -> nl.Output:
    return listed(told, "who", "home")


@nl.step(makes={"home": pl.String, "city": pl.String})
def homes(*, told: Told) -> nl.Output:
    return listed(told, "home", "city")


@nl.step(makes={"who": pl.String, "home": pl.String}, part_rows=2, fan_out=nl.each())
def in_files(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("row_id", "who", "home")


@nl.step(makes={"who": pl.String, "people": pl.Int64}, part_rows=2, looks_up=LOOKS_UP, fan_out=nl.each())
def met(rows: pl.DataFrame, people: pl.DataFrame, homes: pl.DataFrame | None = None) -> pl.DataFrame:  # noqa: ARG001  # given, not used
    return rows.select("row_id", "who", people=pl.lit(people.height, dtype=pl.Int64))


def flow(*sides: Stage) -> list[Stage]:
    return [met(nl.table(pl.DataFrame({"who": WHO}), name="words"), *sides)]


def looked_up(store: Store, table: Manifest, who: str) -> list[pl.DataFrame]:
    known, lived_in = (store.scan(ref).collect() for ref in table.sides)
    own = known.filter(who=who)
    return [own, lived_in.filter(pl.col("home").is_in(own["home"].drop_nulls().implode()))]


def same(store: Store, one: Manifest, other: Manifest, who: str) -> bool:
    pairs = zip(looked_up(store, one, who), looked_up(store, other, who), strict=True)
    return all(rows.equals(others) for rows, others in pairs)


def stayed(store: Store, one: Manifest, other: Manifest, side: int) -> list[str]:
    """Return the rows of a side table that another has too, in their order."""
    rows, others = (store.scan(table.sides[side]).select("row_id").collect()["row_id"] for table in (one, other))
    return rows.filter(rows.is_in(others.implode())).to_list()


def moved(store: Store, before: Manifest, now: Manifest) -> list[int] | None:
    sides = [tuple(store.files(ref)) for ref in now.sides]
    checksums = {path: checksum for ref in now.sides for path, checksum in store.checksums(ref)}
    files = tuple(store.files(now.inputs[0]))
    return rows_with_others(store, before, files, sides, LOOKS_UP, checksums=checksums)


def told(names: tuple[str, ...], values: tuple[str | None, ...]) -> st.SearchStrategy[Told]:
    some = st.lists(st.sampled_from(names), unique=True)
    ordered = st.one_of(some, some.map(sorted))
    return ordered.flatmap(
        lambda chosen: st.tuples(*(st.tuples(st.just(one), st.sampled_from(values)) for one in chosen))
    )


SIDES = st.tuples(
    told(("ann", "ben", "cem", "dea", "fay"), ("h1", "h2", "h3", None)), told(("h1", "h2", "h3"), ("Kiel", "Bonn"))
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all examples, so that equal side tables are built once."""
    return Store(tmp_path_factory.mktemp("store"))


@settings(max_examples=40)
@given(before=SIDES, now=SIDES)
def test_rows_look_up_others_if_and_only_if_their_own_differ(
    store: Store, before: tuple[Told, Told], now: tuple[Told, Told]
) -> None:
    old, new = (
        made("toy", flow(in_files(people(told=some)), homes(told=others)), store)["met"]
        for some, others in (before, now)
    )
    found = moved(store, old, new)
    if any(stayed(store, old, new, side) != stayed(store, new, old, side) for side in (0, 1)):
        assert found is None
    else:
        assert found == [place for place, who in enumerate(WHO) if not same(store, old, new, who)]


NAMES = ("ann", "ben", "cem", "dea", "eli", "fay")
ALL = tuple((name, "h1") for name in NAMES)


def of_files(store: Store, *named: Told) -> list[Manifest]:
    """Return tables that look up the same people in side tables of several files, each told otherwise."""
    return [made("toy", flow(in_files(people(told=some)), homes(told=())), store)["met"] for some in named]


def test_files_that_both_side_tables_have_are_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    moved_out = (*ALL[:2], ("cem", "h2"), *ALL[3:])
    before, now = of_files(store, ALL, moved_out)
    files = [store.checksums(table.sides[0]) for table in (before, now)]
    both = {checksum for _, checksum in files[0]} & {checksum for _, checksum in files[1]}
    assert (len(files[0]), len(files[1]), len(both)) == (3, 3, 2)
    moved(store, before, now)  # verifies the files
    for path, checksum in (file for some in files for file in some):
        if checksum in both:
            path.write_bytes(bytes(path.stat().st_size))
    assert moved(store, before, now) == [WHO.index("cem")]


@pytest.mark.parametrize("order", [(2, 3, 0, 1, 4, 5), (4, 5, 0, 1, 2, 3), (2, 0, 1, 3, 4, 5), (1, 0, 2, 3, 5, 4)])
def test_files_that_both_side_tables_have_in_another_order_tell_nothing(order: tuple[int, ...], tmp_path: Path) -> None:
    store = Store(tmp_path)
    before, now = of_files(store, ALL, tuple(ALL[place] for place in order))
    assert moved(store, before, now) is None


@nl.step(makes={"who": pl.String}, fan_out=nl.each())
def called(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("row_id", who="home")


def test_rows_that_name_the_former_name_of_a_side_row_look_up_others_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    named = ((("first", "ann"), ("second", "ben")), (("first", "cem"), ("second", "ben")))
    before, now = (made("toy", flow(called(people(told=some)), homes(told=())), store)["met"] for some in named)
    rows = [store.scan(table.sides[0]).select("row_id", "who").collect().rows() for table in (before, now)]
    assert [row for row, _ in rows[0]] == [row for row, _ in rows[1]]
    assert rows[0] != rows[1]
    assert moved(store, before, now) == [place for place, who in enumerate(WHO) if who in {"ann", "cem"}]


def test_a_side_table_that_came_or_went_tells_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    known, lived_in = people(told=(("ann", "h1"),)), homes(told=(("h1", "Kiel"),))
    both, one = (made("toy", flow(*sides), store)["met"] for sides in ((known, lived_in), (known,)))
    assert moved(store, both, one) is None
    assert moved(store, one, both) is None
    assert one.work is not None
    assert one.work.parts == len(one.parts)


def test_another_column_and_a_table_that_is_gone_tell_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    frame = pl.DataFrame({"who": ["ann"], "home": ["h1"]})
    frames = (frame, frame.with_columns(age=pl.lit("40")), frame.with_columns(home=pl.lit("h2")))
    plain, aged, elsewhere = (made("toy", flow(nl.table(one, name="people")), store)["met"] for one in frames)
    assert moved(store, plain, aged) is None
    assert moved(store, plain, elsewhere) == [0, 3]
    (store.table_directory(plain.sides[0]) / MANIFEST).unlink()
    assert moved(store, plain, elsewhere) is None
