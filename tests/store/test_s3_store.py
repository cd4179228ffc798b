from __future__ import annotations

import io
import pickle
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from s3_server import SECRET, S3Server

from normloom.core.errors import StoreError
from normloom.core.machine.object_path import ObjectPath, place_of
from normloom.history.removal.gc import collect, idle, remove
from normloom.history.unfinished import UnfinishedBuild, recorded, unfinished
from normloom.lineage.trace import trace
from normloom.store.files import put_new
from normloom.store.locks import lease
from normloom.store.parts import Writer, require_writer
from normloom.store.store import Store
from normloom.store.verify import verify
from normloom.store.views import query
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, runner, words_stage


def lease_at(place: str) -> ObjectPath:
    path = place_of(place) / "lock"
    assert isinstance(path, ObjectPath)
    return path


def test_paths_of_objects_are_paths(place: str) -> None:
    folder = place_of(Path(place))  # as a command line gives it, with one slash
    assert str(folder) == place
    assert folder == place_of(place) == pickle.loads(pickle.dumps(folder))
    assert not folder.exists()
    (folder / "a" / "b.json").write_text("{}")
    (folder / "c.json").write_bytes(b"12345")
    assert folder.is_dir()
    assert not folder.is_file()
    assert [path.name for path in folder.iterdir()] == ["a", "c.json"]
    assert [path.name for path in folder.glob("[!a].json")] == ["c.json"]
    assert [str(path.relative_to(folder)) for path in map(Path, folder.glob("*/b.json"))] != []
    assert list(folder.rglob("*")) == [folder / "a" / "b.json", folder / "c.json"]
    assert (folder / "c.json").stat().st_size == 5
    assert abs((folder / "c.json").stat().st_mtime - time.time()) < 60
    assert stat.S_ISDIR((folder / "a").stat().st_mode)
    assert repr(folder) == f"ObjectPath('{place}')"
    assert folder.absolute() is folder
    with pytest.raises(io.UnsupportedOperation, match="cannot be opened as 'w'"):
        (folder / "c.json").open("w")
    for act in (ObjectPath.read_bytes, ObjectPath.unlink, ObjectPath.stat):
        with pytest.raises(FileNotFoundError):
            act(ObjectPath(str(folder / "d.json")))
    (folder / "c.json").unlink()
    assert not (folder / "c.json").exists()


@pytest.mark.parametrize("name", ["s3://", "gs://bucket/x"])
def test_what_is_no_place_is_refused(name: str) -> None:
    with pytest.raises(StoreError, match=r"expected .*s3://bucket/prefix"):
        place_of(name)


@pytest.mark.usefixtures("server")
def test_a_bucket_that_is_missing_is_told_without_credentials() -> None:
    with pytest.raises((StoreError, FileNotFoundError)) as caught:
        (place_of("s3://nobody/store") / "x").write_bytes(b"1")
    assert SECRET not in str(caught.value)


def test_of_many_who_put_one_name_one_does(place: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: put_new(place_of(place) / "name", b"%d" % number), range(24)))
    assert sum(won) == 1
    assert (place_of(place) / "name").read_bytes() == b"%d" % won.index(True)


def test_of_many_who_take_a_lease_one_does_and_each_holder_has_a_fence_of_its_own(place: str) -> None:
    path = lease_at(place)
    for fence in (1, 2, 3):
        with ThreadPoolExecutor(8) as pool:
            taken = [found for found in pool.map(lambda number: lease.take(path, f"{number}"), range(8)) if found]
        assert [one.fence for one in taken] == [fence]
        assert lease.is_held(path)
        taken[0].give_back()
        assert not lease.is_held(path)


def test_a_lease_that_is_not_renewed_is_taken_over_and_its_holder_finds_out(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lease_at(place)
    sleeper = lease.take(path, "sleeper")
    assert sleeper
    sleeper._ended.set()  # as if its process were stopped
    sleeper._thread.join()
    monkeypatch.setenv(lease.SECONDS, "1")
    told: list[str] = []
    with lease.held(path, "successor", waiting=told.append) as successor:
        assert told == ["sleeper"]
        assert successor.fence == 2
        with pytest.raises(StoreError, match="another has taken it over"):
            sleeper.require()
        sleeper.give_back()
        assert lease.holder_of(path) == "successor"


def test_tables_have_the_content_that_they_have_on_a_disk(server: S3Server, place: str, tmp_path: Path) -> None:
    words = words_stage(*"abcdef")
    flow = echo_stage(words, drop="b", aside="c")
    disk = built(Store(tmp_path), flow, build=build_id(1))
    store = Store(place)
    there = built(store, flow, build=build_id(1))
    assert {name: stage.content for name, stage in there.stages.items()} == {
        name: stage.content for name, stage in disk.stages.items()
    }
    assert list(verify(store)) == []
    echoes = store.newest("toy")[-1]
    assert store.scan(echoes.ref).collect().equals(Store(tmp_path).scan(echoes.ref).collect())
    assert query(store, "SELECT count(*), (SELECT count(*) FROM toy_echo_quarantined) FROM toy_echo")[1] == [(4, 1)]
    row = store.scan(echoes.ref).collect()["row_id"][0]
    assert trace(store, row) == trace(Store(tmp_path), row)
    assert built(store, flow, build=build_id(2)).stages == there.stages
    assert unfinished(store, "toy") == []
    for name in server.names():
        assert SECRET.encode() not in server.read(name)


def test_a_copied_prefix_is_the_same_store(server: S3Server, place: str) -> None:
    flow = echo_stage(words_stage(*"abc"))
    before = built(Store(f"{place}/one"), flow, build=build_id(1))
    prefix = f"{place.removeprefix(f's3://{server.bucket}/')}/one/"
    for name in server.names():
        if name.startswith(prefix):
            target = name.replace("/one/", "/two/", 1)
            source = {"Bucket": server.bucket, "Key": name}
            server.client.copy_object(Bucket=server.bucket, Key=target, CopySource=source)
    moved = Store(f"{place}/two")
    assert list(verify(moved)) == []
    assert query(moved, "SELECT count(*) FROM toy_echo")[1] == [(3,)]
    assert built(moved, flow, build=build_id(2)).stages == before.stages


def test_parts_are_committed_once_and_only_by_the_holder(place: str) -> None:
    store, words = Store(place), words_stage(*"ab")
    directory = store.directory("toy", "words", "k")
    locked = store.lock(directory, Writer.of("first"), waiting=lambda _: None)
    with locked, pytest.raises(StoreError, match="is being written by build first"):
        require_writer(directory, "another")
    with pytest.raises(StoreError, match="is finished, or its build has ended"):
        require_writer(directory, "another")
    manifest, reused = runner(store).run(words, [], [])
    assert not reused
    assert runner(store).run(words, [], []) == (manifest, True)


def test_two_builders_at_once_make_a_table_once(place: str) -> None:
    store, words = Store(place), words_stage(*"abcdef")
    source, _ = runner(store).run(words, [], [])
    found = []

    def build() -> None:
        found.append(runner(Store(place)).run(echo_stage(words), [source.ref], []))

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reused for _, reused in found) == [False, True]
    assert found[0][0] == found[1][0]
    assert list(verify(store)) == []


BUILD = """
import sys
from normloom.core.models.protocol import ModelSpec
from normloom.store.store import Store
from normloom.testing.toy import echo_stage, runner, words_stage
slow = ModelSpec(engine="scripted", model="toy", options={"words": 4, "latency_s": 0.2})
store, words = Store(sys.argv[1]), words_stage(*"abcdefghijkl")
source, _ = runner(store).run(words, [], [])
print(runner(store).run(echo_stage(words, model=slow), [source.ref], [])[0].content)
"""


def test_a_build_that_is_killed_is_resumed_by_the_same_command_to_the_same_content(place: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILD]
    words, loom = words_stage(*"abcdefghijkl"), runner(Store(tmp_path))
    source, _ = loom.run(words, [], [])
    undisturbed, _ = loom.run(echo_stage(words), [source.ref], [])
    marks = (place_of(place) / "toy" / "echo").glob
    with subprocess.Popen([*command, place], stdout=subprocess.DEVNULL) as victim:
        while not (kept := list(marks("*/part-*.json"))):
            assert victim.poll() is None
            time.sleep(0.1)
        victim.kill()
    assert not list(marks("*/manifest.json"))
    assert (
        subprocess.run([*command, place], capture_output=True, text=True, check=True).stdout.strip()
        == undisturbed.content
    )
    manifest = Store(place).newest("toy")[-1]
    writers = {part.files["rows"].name.split("-")[2] for part in manifest.parts}
    assert len(writers) == 2, kept
    assert list(verify(Store(place))) == []


def test_gc_removes_what_no_build_names_and_waits_for_builds(place: str) -> None:
    store = Store(place)
    old = built(store, echo_stage(words_stage(*"ab")), build=build_id(1))
    new = built(store, echo_stage(words_stage(*"abc")), build=build_id(2))
    shown = collect(store, "toy", keep=1, partial=timedelta(0))
    assert {(item.what, item.path.name) for item in shown.garbage} == {
        ("table", stage.key) for stage in old.stages.values()
    }
    with store.building("toy"), pytest.raises(StoreError, match="a build of toy is running"):
        remove(store, shown)
    assert len(remove(store, shown)) == 2
    assert collect(store, "toy", keep=1).garbage == []
    assert {manifest.key for manifest in store.newest("toy")} == {stage.key for stage in new.stages.values()}
    with idle(store, "toy"):
        pass


def test_a_record_tells_whether_its_build_is_at_work(place: str) -> None:
    store = Store(place)
    states: list[str] = []

    def fail() -> None:
        with recorded(store, UnfinishedBuild(system="toy", build=build_id(1))):
            states.extend(build.state for build in unfinished(store, "toy"))
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert states == ["running"]
    assert [build.state for build in unfinished(store, "toy")] == ["failed"]


def test_polars_reads_a_release_in_place(place: str) -> None:
    store = Store(place)
    flow = echo_stage(words_stage(*"abc"))
    built(store, flow, build=build_id(1))
    key = (store.root / "toy" / "latest").read_text()
    assert pl.read_parquet(f"{store.root}/toy/{key}/*.parquet").height == 3
