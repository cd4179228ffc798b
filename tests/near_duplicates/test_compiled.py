"""What numba compiled is kept until a file of the kernels changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import psutil
import pytest

from normloom.near_duplicates.kernels import compiled
from normloom.near_duplicates.kernels.ahead import COMPLETE, compiled_ahead
from normloom.near_duplicates.kernels.removal import look_up_rows

COMPILES = """
from normloom.near_duplicates.__main__ import main
from normloom.near_duplicates.kernels.clusters import join
from normloom.near_duplicates.kernels.removal import confirm_rows, look_up_rows, settle_confirmed
from normloom.near_duplicates.kernels.sets import find_partners
from normloom.near_duplicates.kernels.texts import simhashes
kernels = join, look_up_rows, confirm_rows, settle_confirmed, find_partners, simhashes
print(sum(bool(kernel.signatures) for kernel in kernels))
main()
print(sum(bool(kernel.signatures) for kernel in kernels))
"""

SAVES = """
import fcntl, io, sys
from normloom.near_duplicates.kernels.compiled import KEPT_IN, compiled

@compiled
def plus(number):
    return number + 1

class Log(io.StringIO):
    def write(self, line):
        if " saved to " in line:
            with (KEPT_IN / "lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    print("held", file=sys.__stdout__)
        return len(line)

sys.stdout = Log()
plus(1)
"""


def test_what_was_compiled_is_kept_by_the_content_of_all_kernels(tmp_path: Path) -> None:
    (tmp_path / "sets.py").write_text("one")
    (tmp_path / "texts.py").write_text("two")
    first = compiled.kept_in(tmp_path)
    assert compiled.kept_in(tmp_path) == first
    (tmp_path / "texts.py").write_text("three")
    assert compiled.kept_in(tmp_path) != first


def test_the_kernels_are_kept_there() -> None:
    folder = Path(compiled.__file__).parent
    assert Path(look_up_rows.stats.cache_path).is_relative_to(compiled.kept_in(folder))  # type: ignore[attr-defined]  # numba


def test_where_numba_is_told_to_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "told"))
    assert compiled.kept_in(tmp_path).parent == tmp_path / "told"


def test_no_two_processes_keep_what_they_compiled_at_once(tmp_path: Path) -> None:
    (tmp_path / "saves.py").write_text(SAVES)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_DEBUG_CACHE": "1"}
    done = subprocess.run(
        [sys.executable, tmp_path / "saves.py"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "held\nheld\n", done.stderr  # while index and code are written


def test_one_command_compiles_what_searches_need() -> None:
    done = subprocess.run([sys.executable, "-c", COMPILES], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n6\n"
    assert COMPLETE.exists()


def test_they_are_compiled_ahead_until_they_once_were(tmp_path: Path) -> None:
    others = set(psutil.Process().children())
    with compiled_ahead(tmp_path / "complete"):
        [process] = set(psutil.Process().children()) - others
        assert process.cmdline()[1:] == ["-m", "normloom.near_duplicates"]
        assert process.nice() == 19
        process.suspend()  # it does not come to its end by itself
    assert not process.is_running()
    (tmp_path / "complete").touch()
    with compiled_ahead(tmp_path / "complete"):
        assert set(psutil.Process().children()) == others
