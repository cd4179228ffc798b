"""What numba compiled is kept until a file of the kernels changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numba
import pytest

from normloom.near_duplicates.kernels import compiled
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


def test_one_command_compiles_what_searches_need() -> None:
    done = subprocess.run([sys.executable, "-c", COMPILES], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n6\n"
