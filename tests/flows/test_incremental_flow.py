"""After an edit of its source a build takes over what it can, and has the rows and ledgers of a build from nothing."""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest
from in_process import prepared

from normloom.core.table import KINDS, Manifest
from normloom.store.store import Store
from normloom.testing.inline import made

SETTINGS = (
    "rounds=1",
    "classify={route: exhaustive, part_rows: 4}",
    "models.generators={g1: {engine: scripted, model: m}}",
    "generate={part_rows: 4, candidates: 2}",
    "judge.part_rows=4",
    "expand={minimum: 2, quota: 1, dimensions: [safety], part_rows: 4}",
)
WORDS = ["harbour", "letter", "winter", "doctor", "garden", "market", "police", "river", "brother", "money"]
OLD = list(range(24))
EDITED = [*range(8), 30, *range(9, 15), 31, 32, *range(15, 20), 22, 21, 20, 2, 33, 34]  # 8 another, 23 gone, 2 twice
EDITS = {"appended": [*OLD, 30, 31], "edited all over": EDITED}


def prompt(number: int) -> str:
    draw = random.Random(number)  # a text, no secret
    return f"Number {number}: what should " + " ".join(draw.choices(WORDS, k=draw.randint(4, 9))) + "?"


def built(store: Store, path: Path, numbers: list[int]) -> dict[str, Manifest]:
    rows = {"prompt": [prompt(number) for number in numbers], "page": numbers}
    pl.DataFrame(rows).write_parquet(path)
    return made("savacu", prepared("savacu", store, f"source.path={path}", *SETTINGS).ends, store)


def parts_made(table: Manifest, before: Manifest) -> int:
    return table.work.parts if table.work and table.key != before.key else 0


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Manifest]]:
    folder = tmp_path_factory.mktemp("incremental")
    return folder, built(Store(folder / "store"), folder / "prompts.parquet", OLD)


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_source_gives_what_a_build_from_nothing_gives(
    edit: str, before: tuple[Path, dict[str, Manifest]], tmp_path: Path
) -> None:
    folder, first = before
    store, scratch = Store(folder / "store"), Store(tmp_path / "scratch")
    after, nothing = (built(one, folder / "prompts.parquet", EDITS[edit]) for one in (store, scratch))
    assert nothing["publish"].count("rows") > 0
    for stage in nothing:
        assert after[stage].checks == nothing[stage].checks, stage
        for kind in KINDS:
            found, wanted = store.scan(after[stage].ref, kind), scratch.scan(nothing[stage].ref, kind)
            assert found.collect().equals(wanted.collect()), (stage, kind)
    for stage in ("score_labels", "generate_0_g1", "score_0") if edit == "appended" else ():
        assert 0 < parts_made(after[stage], first[stage]) < len(after[stage].parts) / 2, stage
