from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from normloom.core.machine.once import made_once


def left(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if not path.name.endswith(".lock")}


class TestMadeOnce:
    def test_of_many_that_ask_at_once_one_makes_it(self, tmp_path: Path) -> None:
        made = []
        together = Barrier(8)

        def make(draft: Path) -> None:
            made.append(draft)
            draft.write_text("x" * 1_000_000)

        def ask(_: int) -> str:
            together.wait()
            return made_once(tmp_path / "deep" / "thing", make).read_text()

        with ThreadPoolExecutor(8) as pool:
            texts = list(pool.map(ask, range(8)))
        assert texts == ["x" * 1_000_000] * 8
        assert len(made) == 1
        assert left(tmp_path / "deep") == {"thing"}

    def test_what_fails_leaves_nothing_under_the_name_and_can_be_asked_again(self, tmp_path: Path) -> None:
        def fail(draft: Path) -> None:
            draft.write_text("half")
            raise ValueError("no")

        def whole(draft: Path) -> None:
            draft.write_text("whole")

        with pytest.raises(ValueError, match="no"):
            made_once(tmp_path / "thing", fail)
        assert not (tmp_path / "thing").exists()
        made_once(tmp_path / "thing", whole)
        assert (tmp_path / "thing").read_text() == "whole"
        assert left(tmp_path) == {"thing"}

    def test_a_directory_that_a_dead_process_left_half_made_is_not_used(self, tmp_path: Path) -> None:
        def die(draft: Path) -> None:
            draft.mkdir()
            (draft / "half").touch()
            raise SystemExit

        def make(draft: Path) -> None:
            draft.mkdir()
            (draft / "whole").touch()

        with pytest.raises(SystemExit):
            made_once(tmp_path / "thing", die)
        assert left(made_once(tmp_path / "thing", make)) == {"whole"}
