"""The released table by split: what `datasets` makes of it, and what a kill or a second build leaves."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest
from pydantic import BaseModel, ConfigDict

from normloom.core.contract import Contract
from normloom.core.errors import StoreError
from normloom.core.stage import Output, Stage
from normloom.core.table import Manifest
from normloom.history.removal.gc import collect, remove
from normloom.store.latest import LATEST, _rename, released_key, show_latest
from normloom.store.layout import RELEASE
from normloom.store.locks.hold import Hold
from normloom.store.splits import _link, write_splits
from normloom.store.store import Store
from normloom.store.verify import repair, verify
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, words_stage

SPLIT = Contract(columns={"word": pl.String(), "split": pl.String()})


class Words(BaseModel):
    model_config = ConfigDict(frozen=True)
    rows: tuple[tuple[str, str], ...]


def give(arguments: Words) -> Output:
    frame = pl.DataFrame(arguments.rows, schema=["word", "split"], orient="row")
    named = frame.with_columns(content="word", parents=pl.lit([], dtype=pl.List(pl.String)))
    return Output(rows=named, attempts=frame.height)


def same(rows: pl.DataFrame, arguments: Words) -> Output:  # noqa: ARG001  # as stages are called
    return Output(rows=rows)


def split_words(*rows: tuple[str, str], part_rows: int | None = None) -> Stage:
    """A released table of words with a split each, in parts of a given size."""
    source = Stage(name="source", function=give, arguments=Words(rows=rows), contract=SPLIT)
    return Stage(
        name="publish",
        function=same,
        arguments=Words(rows=()),
        contract=SPLIT,
        inputs=(source,),
        part_rows=part_rows,
    )


def publish(store: Store, *rows: tuple[str, str], number: int = 1, part_rows: int | None = None) -> Manifest:
    built(store, split_words(*rows, part_rows=part_rows), build=build_id(number))
    manifest = store.current("toy", "publish")
    assert manifest is not None
    return manifest


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "train" / "test")  # names that mean a split to `datasets`


def words(store: Store) -> dict[str, list[str]]:
    latest = store.root / "toy" / LATEST
    return {folder.name: pl.read_parquet(folder)["word"].to_list() for folder in sorted(latest.iterdir())}


ROWS = [(f"train {n}", "train") for n in range(5)] + [("checked", "validation"), ("held out", "test"), ("too", "test")]
BY_SPLIT = {"test": ["held out", "too"], "train": [f"train {n}" for n in range(5)], "validation": ["checked"]}


def test_datasets_reads_splits_as_splits(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    latest = store.root / "toy" / LATEST

    def read(**where: object) -> Mapping[str, list[str]]:
        found = datasets.load_dataset("parquet", cache_dir=str(tmp_path / "cache"), **where)
        return {str(name): list(rows["word"]) for name, rows in found.items()}

    publish(store, *ROWS, part_rows=3)
    by_folder = read(data_dir=str(latest))
    assert by_folder == BY_SPLIT
    assert not set(by_folder["train"]) & set(by_folder["test"])
    assert read(data_files={"train": f"{latest}/train/*.parquet"}) == {"train": BY_SPLIT["train"]}
    publish(store, ("other", "train"), ("another", "test"), number=2)
    assert read(data_dir=str(latest)) == {
        "train": ["other"],
        "test": ["another"],
    }  # no cached rows of the release before


def test_parts_of_one_split_are_not_copied(store: Store) -> None:
    manifest = publish(store, *ROWS, part_rows=3)
    table = store.table_directory(manifest.ref)
    linked = {path.stat().st_ino for path, _ in manifest.files(table)}
    files = sorted((table / RELEASE).rglob("*.parquet"))
    assert [str(path.relative_to(table / RELEASE)) for path in files if path.stat().st_ino in linked] == [
        "test/rows-00002.parquet",  # parts of three rows: train, train and validation, test
        "train/rows-00000.parquet",
    ]
    assert words(store) == BY_SPLIT


def release_files(store: Store, manifest: Manifest) -> dict[str, int]:
    """The files of a release, by their path in it, and which they are on the disk."""
    folder = store.table_directory(manifest.ref) / RELEASE
    return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.rglob("*.parquet")}


def test_files_of_parts_that_stay_are_linked_by_the_next_release(store: Store) -> None:
    first = release_files(store, publish(store, *ROWS, part_rows=3))
    more = publish(store, *ROWS, ("new", "train"), number=2, part_rows=3)
    second = release_files(store, more)
    assert {name for name, file in first.items() if second.get(name) == file} == {
        name for name in first if not name.startswith("test/rows-00002")
    }
    assert words(store) == {**BY_SPLIT, "train": [*BY_SPLIT["train"], "new"]}


def test_a_damaged_piece_is_not_linked(store: Store) -> None:
    first = publish(store, *ROWS, part_rows=3)
    [piece] = (store.root / "toy" / LATEST / "validation").iterdir()
    piece.write_bytes(piece.read_bytes()[:-1])
    second = release_files(store, publish(store, *ROWS, ("new", "train"), number=2, part_rows=3))
    mixed = {name: file for name, file in release_files(store, first).items() if "rows-00001" in name}
    assert len(mixed) == 2
    assert all(name in second and second[name] != file for name, file in mixed.items())
    assert words(store) == {**BY_SPLIT, "train": [*BY_SPLIT["train"], "new"]}


def test_a_table_without_splits_is_its_files(store: Store) -> None:
    built(store, echo_stage(words_stage(*"abc")), build=build_id(1))
    latest = store.root / "toy" / LATEST
    assert sorted(path.name for path in latest.iterdir()) == ["rows-00000.parquet", "rows-00001.parquet"]
    assert pl.read_parquet(latest).height == 3


def test_a_split_that_names_no_folder_leaves_the_table_whole(store: Store) -> None:
    publish(store, ("a", "../../../outside"), ("b", "train"))
    assert [path.name for path in (store.root / "toy" / LATEST).iterdir()] == ["rows-00000.parquet"]


def test_a_build_that_was_killed_before_the_switch_is_finished_by_the_next(store: Store) -> None:
    publish(store, *ROWS)
    before = released_key(store, "toy")
    manifest = publish(store, ("other", "train"), number=2)
    # As a kill leaves it: the table is published, its release half-written, the link as it was.
    table = store.table_directory(manifest.ref)
    (table / RELEASE).rename(table / f".{RELEASE}.abcdef.tmp")
    link = store.root / "toy" / LATEST
    link.unlink()
    assert before is not None
    link.symlink_to(Path("publish", before[1], RELEASE))
    assert words(store) == BY_SPLIT
    publish(store, ("other", "train"), number=3)
    assert words(store) == {"train": ["other"]}


def test_damaged_files_leave_the_release_with_their_table(store: Store) -> None:
    manifest = publish(store, *ROWS, part_rows=3)
    damaged = store.root / "toy" / LATEST / "train" / "rows-00000.parquet"  # a file of the table, too
    damaged.write_bytes(b"rot")
    repair(store, list(verify(store, "toy")), Hold())
    assert publish(store, *ROWS, part_rows=3).key == manifest.key
    assert list(verify(store)) == []
    assert words(store) == BY_SPLIT


def test_latest_is_whole_at_any_moment(store: Store) -> None:
    one, other = publish(store, *ROWS), publish(store, ("other", "train"), number=2)
    done, seen = threading.Event(), []

    def look() -> None:
        while not done.is_set():
            folder = Path(os.path.realpath(store.root / "toy" / LATEST))  # what a reader that opened it keeps reading
            seen.append(tuple(sorted(path.name for path in folder.iterdir())))

    reader = threading.Thread(target=look)
    reader.start()
    shown = 0
    while shown < 200 or (len(seen) < 10 and reader.is_alive()):  # a reader on a busy machine comes late
        show_latest(store, one)
        show_latest(store, other)
        shown += 1
    done.set()
    reader.join()
    assert len(seen) >= 10
    assert set(seen) <= {("test", "train", "validation"), ("train",)}
    assert not [path for path in (store.root / "toy").iterdir() if path.name.endswith(".tmp")]


def test_gc_keeps_what_latest_shows_and_counts_what_it_frees(store: Store) -> None:
    shown = publish(store, *ROWS)
    for number in range(2, 5):
        publish(store, (f"word {number}", "train"), number=number)
    show_latest(store, shown)
    found = collect(store, "toy", keep=1)
    tables = {item.path: item for item in found.garbage if item.what == "table"}
    assert store.table_directory(shown.ref) not in tables
    assert tables
    for path, item in tables.items():
        sizes = {file.stat().st_ino: file.stat().st_size for file in path.rglob("*") if file.is_file()}
        assert item.bytes == sum(sizes.values())  # a file and its link in the release count once
    remove(store, found)
    assert words(store) == BY_SPLIT
    assert not any(path.exists() for path in tables)


def test_a_folder_in_the_place_of_the_link_is_said(store: Store) -> None:
    manifest = publish(store, *ROWS)
    link = store.root / "toy" / LATEST
    shutil.copytree(link, link.with_name("copied"))  # as a copy of a store does that follows links
    link.unlink()
    link.with_name("copied").rename(link)
    with pytest.raises(StoreError, match=f"{link} is a folder, .* remove it"):
        show_latest(store, manifest)
    shutil.rmtree(link)
    show_latest(store, manifest)
    assert words(store) == BY_SPLIT


def test_a_folder_that_another_build_put_there_stays(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        folder.mkdir()
        (folder / folder.name).touch()
    _rename(mine, theirs)
    assert [path.name for path in theirs.iterdir()] == ["theirs"]
    with pytest.raises(FileNotFoundError):
        _rename(tmp_path / "gone", tmp_path / "there")


def test_without_links_a_release_is_copies(store: Store, tmp_path: Path) -> None:
    manifest = publish(store, ("a", "train"), ("b", "test"))
    write_splits(manifest, store.table_directory(manifest.ref), tmp_path / "copies", before=None)
    found = {path.parent.name: pl.read_parquet(path)["word"].to_list() for path in tmp_path.glob("copies/*/*.parquet")}
    assert found == {"train": ["a"], "test": ["b"]}
    elsewhere = Path("/proc/version")  # of another file system
    _link(elsewhere, tmp_path / "copies/version")
    assert (tmp_path / "copies/version").read_bytes() == elsewhere.read_bytes()
