"""What an export may replace, and what an interrupted one leaves."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from normloom.core.errors import NormloomError, StoreError, UsageError
from normloom.exports.folder import MARKER, SUMS, _take_place, exported_folder
from normloom.store.files import writing


def write(target: Path, *, overwrite: bool = False, **files: str) -> None:
    with exported_folder(target, overwrite=overwrite) as folder:
        (folder / MARKER).write_text("{}")
        for name, text in files.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)


def contents(folder: Path) -> dict[str, str]:
    inside = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in inside if path.name != SUMS}


def test_an_export_is_replaced_whole_if_that_is_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "new" / "out"
    write(target, data__old="1", card="a")
    with pytest.raises(UsageError, match="is an earlier export: replace it with --overwrite"):
        write(target, card="b")
    assert contents(target) == {"card": "a", "data/old": "1", MARKER: "{}"}
    write(target, overwrite=True, card="b")
    assert contents(target) == {"card": "b", MARKER: "{}"}
    assert [path.name for path in target.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda out: (out / "notes.txt").write_text("mine"), "notes.txt was put there by someone else"),
        (lambda out: (out / "card").write_text("edited"), "card has been changed"),
        (lambda out: (out / "card").unlink(), None),
        (lambda out: (out / "link").symlink_to(out / "card"), "link was put there by someone else"),
        (lambda out: (out / MARKER).unlink(), None),
        (lambda out: (out / SUMS).unlink(), f"it has no {MARKER} with a {SUMS}"),
    ],
)
def test_what_is_foreign_is_never_touched(tmp_path: Path, spoil: object, why: str | None) -> None:
    target = tmp_path / "out"
    write(target, card="a", data__one="1")
    spoil(target)  # type: ignore[operator]  # a function of the folder
    before = contents(target)
    if why is None:  # a file of the export is gone: nothing of anybody else's is in it
        write(target, overwrite=True, card="b")
        assert contents(target) == {"card": "b", MARKER: "{}"}
        return
    with pytest.raises(UsageError, match=f"is not an unchanged earlier export: {why}"):
        write(target, overwrite=True, card="b")
    assert contents(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_that_comes_in_while_an_export_is_written_stays(tmp_path: Path) -> None:
    target = tmp_path / "out"
    write(target, card="a")
    writing = exported_folder(target, overwrite=True)
    (writing.__enter__() / MARKER).write_text("{}")
    (target / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes.txt was put there"):
        writing.__exit__(None, None, None)
    assert contents(target) == {"card": "a", MARKER: "{}", "notes.txt": "mine"}


def test_an_empty_folder_may_be_filled_and_a_file_may_not_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", card="a")
    assert contents(tmp_path / "empty") == {"card": "a", MARKER: "{}"}
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for name in ("file", "link"):
        with pytest.raises(UsageError, match=f"{name} is not a folder: name a new one"):
            write(tmp_path / name, overwrite=True)


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    writing = exported_folder(tmp_path / "out", overwrite=False)
    (writing.__enter__() / "half").write_text("half")
    assert not writing.__exit__(RuntimeError, RuntimeError(), None)  # the error goes on
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, time
from pathlib import Path
from normloom.exports.folder import exported_folder
with exported_folder(Path(sys.argv[1]), overwrite=True) as folder:
    (folder / "half").write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


def test_a_killed_export_leaves_the_old_one_and_is_swept_by_the_next(tmp_path: Path) -> None:
    target = tmp_path / "out"
    write(target, card="a")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert contents(target) == {"card": "a", MARKER: "{}"}
    [left] = [path for path in tmp_path.iterdir() if path != target]
    write(target, overwrite=True, card="b")
    assert not left.exists()


def test_an_export_that_cannot_take_its_place_leaves_the_old_one_there(tmp_path: Path) -> None:
    write(tmp_path / "out", card="a")
    with pytest.raises(UsageError, match="cannot write"):
        _take_place(tmp_path / "gone", tmp_path / "out")
    assert contents(tmp_path / "out") == {"card": "a", MARKER: "{}"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_export_under_way_is_not_swept(tmp_path: Path) -> None:
    with exported_folder(tmp_path / "out", overwrite=False) as folder:
        write(tmp_path / "out", card="other")  # which ends first
        assert folder.exists()
        (folder / "card").write_text("mine")
        with pytest.raises(BlockingIOError), (folder / ".writing").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in (tmp_path / "out").iterdir():
            path.unlink()
    assert contents(tmp_path / "out") == {"card": "mine"}


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write .*name a folder that can be written"):
        write(tmp_path / "file" / "out")
    with pytest.raises(UsageError, match=r"cannot write .*File name too long; name a folder that can be written"):
        write(tmp_path / ("x" * 250))


@pytest.mark.parametrize(("refusal", "kept"), [(UsageError, ""), (StoreError, ", finished parts are kept")])
def test_a_disk_that_is_full_is_said(refusal: type[NormloomError], kept: str) -> None:
    full = Path("/dev/full")
    said = f"^cannot write {full}: No space left on device; free some space and rerun the command{kept}$"
    with pytest.raises(refusal, match=said), writing(full, refusal=refusal):
        full.write_text("x")
