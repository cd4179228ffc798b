"""Drafts are compared with all prompts; a prompt that goes costs only the parts in which something lost to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import normloom as nl
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.schemas import tables
from normloom.schemas.taxonomy import builtin_taxonomies
from normloom.store.parts import scan_parts
from normloom.store.store import Store
from normloom.tasks.prompts.expand import Drafting, GapSearch, expand, find_sparse
from normloom.testing import made, scripted

[_SAFETY] = [one for one in builtin_taxonomies() if one.dimension == "safety"]
SAFETY = _SAFETY.model_copy(update={"labels": _SAFETY.labels[:4]})
TAU = 26  # so far that some drafts of the scripted model are near a prompt
PROMPTS = [f"{one} {other} of the old harbour" for one in ("Who", "When", "Why") for other in ("tells", "sells", "is")]
MORE = [
    "One more question of the harbour",
    "Nothing like it",
    "What would a quiet neighbour have said",
    "Why so",
]


COLUMNS = {name: tables.LABELLED.schema[name] for name in ("prompt", "origin", "labels")}


@nl.step(makes=COLUMNS, part_rows=2, fan_out=nl.each())
def in_files(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("row_id", *COLUMNS)


def flow(prompts: list[str], labels: dict[str, str], *, files: bool = False, **more: str) -> list[Stage]:
    rows = [
        {
            "prompt": prompt,
            "origin": "source",
            "labels": [{"dimension": "safety", "label": labels[prompt], "probability": 0.9}],
        }
        for prompt in prompts
    ]
    more_columns = [pl.lit(text).alias(name) for name, text in more.items()]
    told = nl.table(pl.DataFrame(rows, schema=COLUMNS).with_columns(more_columns), name="labelled")
    source = in_files(told) if files else told
    gaps = find_sparse(source, GapSearch(quota=3, examples=1), taxonomies=(SAFETY,), minimum=5)
    drafting = Drafting(part_rows=1, min_words=1)
    return [expand(gaps, drafting, source, scripted(words=4), taxonomies=(SAFETY,), tau=TAU)]


def rows(store: Store, table: Manifest) -> list[tuple[object, ...]]:
    return [row for kind in ("rows", "dropped") for row in store.scan(table.ref, kind).collect().rows()]


def test_parts_that_a_prompt_did_not_decide_are_taken_over(tmp_path: Path) -> None:
    names = [label.id for label in SAFETY.labels]
    labels = {prompt: names[place % 3] for place, prompt in enumerate(PROMPTS)}
    store = Store(tmp_path / "store")
    first = made("toy", flow(PROMPTS, labels), store)["expand"]
    directory = store.table_directory(first.ref)
    ids = dict(store.scan(first.sides[0]).select("prompt", "row_id").collect().iter_rows())
    winners = [set(scan_parts(directory, [part], "dropped").collect()["winner"]) for part in first.parts]
    costs = []
    for prompt in PROMPTS[::2]:
        left = [one for one in PROMPTS if one != prompt]
        copy = Store(shutil.copytree(store.root, tmp_path / ids[prompt]))
        after = made("toy", flow(left, labels), copy)["expand"]
        scratch = Store(tmp_path / f"{ids[prompt]}-scratch")
        assert rows(copy, after) == rows(scratch, made("toy", flow(left, labels), scratch)["expand"])
        lost = {place for place, named in enumerate(winners) if ids[prompt] in named}
        if prompt in PROMPTS[: len(set(labels.values()))]:  # the one that its label's drafts were shown
            lost.add(names.index(labels[prompt]))
        assert (after.work.parts if after.work else 0) == len(lost)
        costs.append(len(lost))
    assert len(first.parts) == len(names)
    assert min(costs) < len(names)
    assert max(costs[2:]) > 0  # of prompts that were shown to none: something did lose to one


@settings(max_examples=12)
@given(
    new=st.lists(st.sampled_from(MORE), unique=True, min_size=1, max_size=3),
    gone=st.sets(st.sampled_from(PROMPTS), max_size=2),
    place=st.integers(0, len(PROMPTS)),
)
def test_what_is_taken_over_after_prompts_came_and_went_is_what_a_build_from_nothing_makes(
    tmp_path_factory: pytest.TempPathFactory, new: list[str], gone: set[str], place: int
) -> None:
    left = [one for one in [*PROMPTS[:place], *new, *PROMPTS[place:]] if one not in gone]
    labels = dict.fromkeys([*PROMPTS, *MORE], SAFETY.labels[0].id)
    store, scratch = (Store(tmp_path_factory.mktemp("store")) for _ in range(2))
    made("toy", flow(PROMPTS, labels, files=True), store)
    after = made("toy", flow(left, labels, files=True), store)["expand"]
    assert rows(store, after) == rows(scratch, made("toy", flow(left, labels, files=True), scratch)["expand"])


def test_prompts_in_another_order_cost_all_parts_also_if_they_are_in_the_same_files(tmp_path: Path) -> None:
    labels = {prompt: SAFETY.labels[place % 2].id for place, prompt in enumerate(PROMPTS)}
    store, scratch = Store(tmp_path / "store"), Store(tmp_path / "scratch")
    before = made("toy", flow(PROMPTS, labels, files=True), store)["expand"]
    swapped = [*PROMPTS[4:6], *PROMPTS[2:4], *PROMPTS[:2], *PROMPTS[6:]]
    after = made("toy", flow(swapped, labels, files=True), store)["expand"]
    old, new = ([checksum for _, checksum in store.checksums(table.sides[0])] for table in (before, after))
    assert old != new
    assert sorted(old) == sorted(new)
    assert after.work
    assert after.work.parts == len(after.parts)
    assert rows(store, after) == rows(scratch, made("toy", flow(swapped, labels, files=True), scratch)["expand"])


def test_a_new_prompt_costs_the_parts_of_drafts_that_are_near_it(tmp_path: Path) -> None:
    names = [label.id for label in SAFETY.labels]
    labels = dict.fromkeys([*PROMPTS, *MORE], names[0])
    store = Store(tmp_path / "store")
    first = made("toy", flow(PROMPTS, labels), store)["expand"]
    costs = []
    for number, prompt in enumerate(MORE):
        copy = Store(shutil.copytree(store.root, tmp_path / str(number)))
        after = made("toy", flow([*PROMPTS, prompt], labels), copy)["expand"]
        assert len(after.parts) == len(first.parts)
        costs.append(after.work.parts if after.work else 0)
    assert min(costs) < max(costs) <= len(first.parts)


def test_without_the_earlier_side_table_all_parts_are_made(tmp_path: Path) -> None:
    labels = dict.fromkeys([*PROMPTS, *MORE], SAFETY.labels[0].id)
    store, scratch = Store(tmp_path / "store"), Store(tmp_path / "scratch")
    first = made("toy", flow(PROMPTS, labels), store)["expand"]
    shutil.rmtree(store.table_directory(first.sides[0]))
    left = Store(store.root)
    after = made("toy", flow([*PROMPTS, MORE[1]], labels), left)["expand"]
    assert after.work
    assert after.work.parts == len(after.parts)
    assert rows(left, after) == rows(scratch, made("toy", flow([*PROMPTS, MORE[1]], labels), scratch)["expand"])


def test_a_side_table_with_other_columns_costs_all_parts(tmp_path: Path) -> None:
    labels = dict.fromkeys(PROMPTS, SAFETY.labels[0].id)
    store = Store(tmp_path)
    made("toy", flow(PROMPTS, labels), store)
    after = made("toy", flow(PROMPTS, labels, note="new"), store)["expand"]
    assert after.work
    assert after.work.parts == len(after.parts)


def test_any_new_row_affects_a_step_that_does_not_say_which_do() -> None:
    nothing = pl.DataFrame()
    assert nl.Compared().touches(nothing, nothing, nothing, {})


def test_what_is_compared_are_columns_by_name() -> None:
    with pytest.raises(
        nl.ConfigError, match=r'columns must be names of columns in a tuple, such as \("prompt",\); got'
    ):
        nl.Compared(columns="prompt")  # type: ignore[arg-type]  # as users write
