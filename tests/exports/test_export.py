"""Exports of the four systems, read by the libraries that their users have."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import polars as pl
import pytest
import yaml

import normloom as nl
from normloom.core.errors import StoreError, UsageError
from normloom.exports.export import export
from normloom.exports.folder import SUMS
from normloom.history.exports import exports
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import runner, words_stage

SYSTEMS = ("savacu", "misaligntrade", "demo_safetybench", "persodpo")


def released(store: Store, system: str) -> pl.DataFrame:
    manifest = store.current(system, "publish")
    assert manifest is not None
    return store.scan(manifest.ref).collect()


def front_matter(folder: Path) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    return found


@pytest.mark.parametrize("system", SYSTEMS)
def test_datasets_reads_the_released_rows_with_their_splits_and_types(four: Store, system: str, tmp_path: Path) -> None:
    export(four, system, tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"))
    rows = released(four, system).drop("parents")
    splits = rows["split"] if "split" in rows.columns else pl.Series(["train"] * rows.height)
    assert {name: split.num_rows for name, split in loaded.items()} == dict(splits.value_counts().iter_rows())
    for name, split in loaded.items():
        assert split.to_list() == rows.filter(splits == name).to_dicts()
        assert split.features == datasets.Features.from_arrow_schema(split.data.schema)


def test_every_released_table_is_a_configuration(four: Store, tmp_path: Path) -> None:
    made = export(four, "savacu", tmp_path / "out")
    names = datasets.get_dataset_config_names(str(tmp_path / "out"))
    assert names == ["default", "coverage", "agreement"] == [one.shown.name for one in made.tables]
    coverage = datasets.load_dataset(str(tmp_path / "out"), "coverage", split="train")
    assert coverage.num_rows == 111
    assert set(coverage["dimension"]) == {"safety", "value", "cultural"}


CHECK = """
import json, sys, mlcroissant
for path in sys.argv[1:]:
    data = mlcroissant.Dataset(jsonld=path)
    issues = [*data.metadata.issues.errors, *data.metadata.issues.warnings]
    ids = [record["default/train/row_id"].decode() for record in data.records("default/train")]
    print(json.dumps({"issues": issues, "version": data.metadata.version, "ids": ids}))
"""


def test_croissant_is_valid_and_its_records_are_the_rows(four: Store, tmp_path: Path) -> None:
    """In a process of its own: absl's log handler closes pytest's standard error when Prefect sets logging up."""
    made = [export(four, system, tmp_path / system, format="croissant") for system in SYSTEMS]
    paths = [str(one.path / "croissant.json") for one in made]
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CHECK, *paths], stdout=subprocess.PIPE, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["issues"] for one in found] == [[]] * len(SYSTEMS)
    for one, seen in zip(made, found, strict=True):
        assert seen["version"] == one.release.version
        assert not (one.path / "README.md").exists()
        [file] = [file for file in one.tables[0].files if file.split == "train"]
        assert seen["ids"] == pl.read_parquet(one.path / file.path)["row_id"].to_list()


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_plain_formats_hold_the_release_alone(four: Store, form: str, tmp_path: Path) -> None:
    export(four, "demo_safetybench", tmp_path / "out", format=form)  # type: ignore[arg-type]  # a parameter
    rows = released(four, "demo_safetybench").drop("parents")
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert loaded.column_names == rows.columns
    assert list(loaded["context"]) == rows["context"].to_list()
    if form == "jsonl":
        assert loaded.to_list() == rows.to_dicts()
    else:
        nested = pl.Series(list(loaded["ratings"])).str.json_decode(rows.schema["ratings"])
        assert nested.to_list() == rows["ratings"].to_list()


def test_a_table_is_chosen_by_name_and_an_unknown_one_is_refused(four: Store, tmp_path: Path) -> None:
    made = export(four, "misaligntrade", tmp_path / "out", format="csv", tables=["trade_off"])
    assert [one.shown.name for one in made.tables] == ["trade_off"]
    with pytest.raises(UsageError, match=r"unknown released table 'judge_0' .*available: publish, coverage, trade_off"):
        export(four, "misaligntrade", tmp_path / "other", tables=["judge_0"])
    assert not (tmp_path / "other").exists()


def test_checksums_hold_and_the_same_release_gives_the_same_files(four: Store, tmp_path: Path) -> None:
    for name in ("one", "two"):
        export(four, "persodpo", tmp_path / name)
    subprocess.run(["sha256sum", "--quiet", "--strict", "--check", SUMS], cwd=tmp_path / "one", check=True)
    sums = [(tmp_path / name / SUMS).read_text() for name in ("one", "two")]
    assert sums[0] == sums[1]
    assert "README.md" in sums[0]


def test_the_store_records_where_rows_went(four: Store, tmp_path: Path) -> None:
    made = export(four, "misaligntrade", tmp_path / "out", format="trl", pairs="kto")
    record = exports(four, "misaligntrade")[-1]
    assert record == made.record
    assert (record.path, record.format, record.pushed) == (str(tmp_path / "out"), "trl, kto", None)
    manifest = four.current("misaligntrade", "publish")
    assert manifest is not None
    assert list(record.tables) == [manifest.ref]
    assert [ref.stage for ref in record.reads if ref.system == "savacu"] == ["classify"]


def test_a_system_without_release_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no tables in .* yet: run normloom build first"):
        export(Store(tmp_path / "store"), "savacu", tmp_path / "out")


def test_tables_that_no_build_released_are_no_release(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    runner(store).run(words_stage("a"), [], [])
    with pytest.raises(UsageError, match=r"toy has no release in .*: run normloom build toy first"):
        export(store, "toy", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_release_whose_locks_are_gone_has_to_be_built_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    built(store, nl.table([{"prompt": "one"}]), build=build_id(1), system="bare")
    shutil.rmtree(store.root / "bare" / "builds")
    with pytest.raises(StoreError, match=r"the release of bare in .* has no lock of its build"):
        export(store, "bare", tmp_path / "out")
