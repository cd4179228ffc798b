"""A store works wherever it is moved: another path, object storage, and back."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
from s3_server import S3Server, s3_server

from normloom.core.stage import Stage
from normloom.exports.export import export
from normloom.history.builds import BuildLock
from normloom.history.links import broken_links
from normloom.lineage.trace import trace
from normloom.store.latest import is_shown
from normloom.store.store import Store
from normloom.store.verify import verify
from normloom.store.views import query
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, words_stage


def flow() -> Stage:
    return echo_stage(words_stage(*"abcdef"), drop="b", aside="c")


@pytest.fixture
def first(tmp_path: Path) -> Store:
    store = Store(tmp_path / "first")
    built(store, flow(), build=build_id(1))
    return store


def works(store: Store, before: BuildLock, row: str) -> None:
    """Hold a store to what it was: nothing is damaged, read otherwise or made again."""
    assert list(verify(store)) == []
    assert query(store, "SELECT count(*) FROM toy_echo")[1] == [(4,)]
    assert [one.row_id for one in trace(store, row).rows]
    again = built(store, flow(), build=build_id(2))
    assert again.stages == before.stages
    assert is_shown(store, "toy")
    assert list(broken_links(store)) == []


def row_of(store: Store) -> str:
    table = store.current("toy", "echo")
    assert table
    return str(store.scan(table.ref).collect()["row_id"][0])


def test_a_store_at_another_path_works_as_before(first: Store, tmp_path: Path) -> None:
    lock, row = built(first, flow(), build=build_id(1)), row_of(first)
    old = str(first.root)
    there = tmp_path / "another machine" / "data"
    there.parent.mkdir()
    shutil.move(first.root, there)
    for path in (path for path in there.rglob("*") if path.is_file()):
        assert old.encode() not in path.read_bytes(), path
    assert not (there / "toy" / "latest").readlink().is_absolute()
    moved = Store(there)
    works(moved, lock, row)
    made = export(moved, "toy", tmp_path / "out")
    assert made.release.version == "1.0.0"
    assert pl.read_parquet(tmp_path / "out" / "data" / "default" / "*.parquet").height == 4


def test_a_store_is_copied_to_object_storage_and_back(first: Store, tmp_path: Path) -> None:
    lock, row = built(first, flow(), build=build_id(1)), row_of(first)
    with s3_server() as server:
        for path in (path for path in first.root.rglob("*") if path.is_file() and not path.is_symlink()):
            if "latest" not in path.parts:
                server.client.upload_file(str(path), server.bucket, f"copy/{path.relative_to(first.root)}")
        works(Store(f"s3://{server.bucket}/copy"), lock, row)
        back = tmp_path / "back"
        download(server, "copy/", back)
    assert (back / "toy" / "latest").is_file()
    works(Store(back), lock, row)
    assert (back / "toy" / "latest").is_symlink()


def download(server: S3Server, prefix: str, target: Path) -> None:
    for name in server.names():
        if name.startswith(prefix):
            path = target / name.removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(server.read(name))
