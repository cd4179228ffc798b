from __future__ import annotations

import errno
import io
import json
import multiprocessing
import shutil
from pathlib import Path
from typing import BinaryIO

import polars as pl
import pytest
from blake3 import blake3

from normloom.core.errors import StoreError, UsageError
from normloom.core.table import LEDGERS, NO_FILE, FileRecord, Kind, Manifest
from normloom.store.files import write_file, write_together
from normloom.store.integrity import file_problem
from normloom.store.layout import part_marker
from normloom.store.parts import ROW_GROUP, Writer, _link, _ParquetFile, read_slice, write_frames
from normloom.store.store import Store
from normloom.store.unpublished import quarantines
from normloom.store.views import query
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, runner, words_stage


@pytest.fixture
def made(tmp_path: Path) -> tuple[Store, Manifest]:
    store, words = Store(tmp_path / "store"), words_stage(*"abcde")
    loom = runner(store)
    first, _ = loom.run(words, [], [])
    manifest, _ = loom.run(echo_stage(words), [first.ref], [])
    return store, manifest


def test_a_written_file_is_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_file(tmp_path / "file", b"one")
    write_file(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    store = Store(tmp_path / "file" / "store")
    with pytest.raises(StoreError, match=r"cannot write .*Not a directory; give --store a directory"):
        runner(store).run(words_stage("a"), [], [])


class FullDisk(io.BytesIO):
    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_up_while_rows_are_written_is_told_as_that() -> None:
    rows = pl.DataFrame({"n": range(3)})
    for content in (rows, rows.clear()):
        with pytest.raises(OSError, match="No space left on device"):
            _ParquetFile(content).write_to(FullDisk())


def test_what_is_written_is_what_is_recorded(tmp_path: Path) -> None:
    rows = pl.DataFrame({"n": range(2 * ROW_GROUP + 5)})
    none = rows.clear()
    records = write_frames(tmp_path, 0, {"rows": rows, "dropped": none, "quarantined": rows}, writer="w")
    assert records["dropped"] == NO_FILE
    assert len(list(tmp_path.iterdir())) == 2
    for record in (records["rows"], records["quarantined"]):
        content = (tmp_path / record.name).read_bytes()
        assert pl.read_parquet(io.BytesIO(content)).equals(rows)
        assert (record.rows, record.bytes, record.blake3) == (rows.height, len(content), blake3(content).hexdigest())


def test_reads_any_slice_of_files_laid_end_to_end(tmp_path: Path) -> None:
    files = []
    for number, values in enumerate(([0, 1, 2], [], [3], [4, 5])):
        path = tmp_path / f"{number}.parquet"
        pl.DataFrame({"other": 0, "n": values}, schema={"other": pl.Int64, "n": pl.Int64}).write_parquet(path)
        files.append((path, len(values)))
    for start in range(7):
        for stop in range(start, 7):
            assert read_slice(files, start, stop)["n"].to_list() == list(range(start, min(stop, 6)))
            assert read_slice(files, start, stop, columns=("n",)).columns == ["n"]


def test_a_long_slice_of_a_large_file_is_read_at_once(tmp_path: Path) -> None:
    path, rows = tmp_path / "rows.parquet", 6 * ROW_GROUP
    pl.DataFrame({"n": range(rows)}).write_parquet(path, row_group_size=ROW_GROUP)
    found = read_slice([(path, rows)], 1, rows - 1)["n"]
    assert (found.len(), found[0], found[-1]) == (rows - 2, 1, rows - 2)


def test_a_file_that_can_have_no_second_name_is_copied(tmp_path: Path) -> None:
    elsewhere, target = Path("/proc/version"), tmp_path / "target"  # of another file system
    _link(str(elsewhere), str(target))
    _link("/proc/uptime", str(target))  # the name is taken
    assert target.read_bytes() == elsewhere.read_bytes()


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    record = FileRecord(name="rows", rows=1, bytes=(tmp_path / "rows").stat().st_size, sha256="")
    assert file_problem(tmp_path, record) == "cannot be read: Is a directory"


def test_parts_laid_end_to_end_are_the_table(made: tuple[Store, Manifest]) -> None:
    store, manifest = made
    directory = store.table_directory(manifest.ref)
    rows = read_slice(manifest.files(directory), 0, 5)
    assert rows.equals(store.scan(manifest.ref).collect())
    assert [(part.start, part.stop) for part in manifest.parts] == [(0, 2), (2, 4), (4, 5)]


def test_a_ledger_without_entries_is_a_table_without_rows(tmp_path: Path) -> None:
    store, words = Store(tmp_path), words_stage(*"abc")
    built(store, echo_stage(words, drop="b"), build=build_id(1))
    echo = store.current("toy", "echo")
    assert echo
    directory = store.table_directory(echo.ref)
    names = sorted(path.name.partition("-")[0] for path in directory.glob("*.parquet"))
    assert names == ["dropped", "rows", "rows"]
    assert [bool(part.files["dropped"].name) for part in echo.parts] == [True, False]
    kinds: tuple[Kind, ...] = ("dropped", "quarantined")
    for kind in kinds:
        assert store.scan(echo.ref, kind).collect_schema().names() == [*LEDGERS[kind]]
    assert store.scan(echo.ref, "dropped").collect().height == 1
    assert query(store, "SELECT count(*) FROM toy_echo_dropped")[1] == [(1,)]
    assert query(store, "SELECT reason FROM toy_words_dropped")[1] == []
    assert query(store, "SELECT row_id, rule, published FROM toy_echo_quarantined")[1] == []
    assert [found.rows().columns for found in quarantines(store, "toy")] == [[*LEDGERS["quarantined"]]] * 2


def test_a_table_that_lacks_a_file_is_not_published(made: tuple[Store, Manifest]) -> None:
    store, manifest = made
    (store.table_directory(manifest.ref) / manifest.parts[1].files["rows"].name).unlink()
    assert store.published("toy", "echo", manifest.key) is None
    with pytest.raises(StoreError, match=r"table toy/echo/\w+: files of its part 1 are missing"):
        store.scan(manifest.ref)


def test_a_part_counts_only_while_its_checksums_verify(made: tuple[Store, Manifest]) -> None:
    store, manifest = made
    directory = store.table_directory(manifest.ref)
    assert sorted(store.parts(directory)) == [0, 1, 2]
    path = directory / manifest.parts[1].files["rows"].name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert sorted(store.parts(directory)) == [0, 2]


def test_a_part_is_held_while_its_marker_says_the_same_and_its_files_are_there(made: tuple[Store, Manifest]) -> None:
    store, manifest = made
    directory = store.table_directory(manifest.ref)
    marker = part_marker(directory, 0)
    marker.write_text(json.dumps(json.loads(marker.read_text()), indent=4))
    assert store.holds(directory, manifest.parts[0])
    marker.unlink()
    assert not store.holds(directory, manifest.parts[0])
    (directory / manifest.parts[1].files["rows"].name).unlink()
    assert not store.holds(directory, manifest.parts[1])


def test_a_table_without_files_of_its_own_is_no_folder(made: tuple[Store, Manifest]) -> None:
    store, manifest = made
    assert repr(store) == f"Store('{store.root}')"
    with pytest.raises(StoreError, match=r"product toy/echo/\w+ has no files, only rows"):
        store.folder(manifest.ref)


def test_newest_follows_the_pointer(made: tuple[Store, Manifest]) -> None:
    store, manifest = made
    words = words_stage(*"xy")
    loom = runner(store)
    first, _ = loom.run(words, [], [])
    newer, _ = loom.run(echo_stage(words), [first.ref], [])
    assert store.current("toy", "echo") == newer
    loom.run(words_stage(*"abcde"), [], [])
    older, reused = loom.run(echo_stage(words), list(manifest.inputs), [])
    assert reused
    assert store.current("toy", "echo") == older == manifest
    assert [found.stage for found in store.newest("toy")] == ["words", "echo"]
    assert store.systems() == ["toy"]
    store.require("toy")
    with pytest.raises(UsageError, match=r"unknown system 'tony' in .*; did you mean toy\?"):
        store.require("tony")


def _hold(directory: Path, held: multiprocessing.synchronize.Event, release: multiprocessing.synchronize.Event) -> None:
    with Store(directory).lock(directory / "table", Writer.of("b"), waiting=print):
        held.set()
        release.wait(60)


def test_only_one_process_writes_a_table_and_a_killed_one_frees_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, held, release))
    process.start()
    assert held.wait(60)
    waited: list[str] = []

    def killing(holder: str) -> None:
        waited.append(holder)
        process.kill()

    with Store(tmp_path).lock(tmp_path / "table", Writer.of("b"), waiting=killing):
        pass
    process.join()
    assert len(waited) == 1
    assert f"build b (process {process.pid} on " in waited[0]


def test_files_that_are_written_together_are_all_there_or_none(tmp_path: Path) -> None:
    def full(_: BinaryIO) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with pytest.raises(StoreError, match="no space left"):
        write_together({tmp_path / "one": b"1", tmp_path / "two": full})
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_is_gone_has_no_checksums(tmp_path: Path) -> None:
    store = Store(tmp_path)
    table, _ = runner(store).run(words_stage("a"), [], [])
    assert len(store.checksums(table.ref)) == 1
    shutil.rmtree(store.table_directory(table.ref))
    assert Store(tmp_path).checksums(table.ref) == []
