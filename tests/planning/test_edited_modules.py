from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from normloom.core.errors import UsageError
from normloom.core.stage import Stage
from normloom.planning.keys import key_fields, stage_key

HELPER = "mark_of_edited_modules"
STEPS = f"""
import polars as pl
import normloom as nl
from {HELPER} import mark

@nl.step(makes={{"word": pl.String}})
def marked():
    return nl.Output(rows=pl.DataFrame({{"word": [mark()], "parents": [[]]}}))
"""
SCRIPT = """
import os, pathlib, polars as pl, normloom as nl

@nl.step(makes={"word": pl.String})
def marked():
    return nl.Output(rows=pl.DataFrame({"word": ["one"], "parents": [[]], "content": ["one"]}))

path = pathlib.Path(__file__)
path.write_text(path.read_text().replace("one", "other"))
nl.build(marked(), store="store", name="script")
"""


def key(stage: Stage) -> str:
    return stage_key(key_fields("mine", stage, inputs=[], sides=[]))


def edit(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000_000))  # whatever the clock's ticks


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module with a step that calls a helper of another module."""
    (tmp_path / f"{HELPER}.py").write_text("def mark(): return 'one'\n")
    (tmp_path / "steps_of_edited_modules.py").write_text(STEPS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("steps_of_edited_modules")
    for name in (HELPER, "steps_of_edited_modules"):
        sys.modules.pop(name, None)


def test_a_helper_that_was_edited_after_its_import_is_refused_until_it_is_reloaded(
    steps: ModuleType, tmp_path: Path
) -> None:
    edit(tmp_path / f"{HELPER}.py", "def mark(): return 'another'\n")
    with pytest.raises(UsageError, match=f"stage 'marked': module '{HELPER}' was edited after it was imported"):
        key(steps.marked())
    importlib.reload(sys.modules[HELPER])
    edited = key(importlib.reload(steps).marked())
    edit(tmp_path / f"{HELPER}.py", "def mark(): return 'one'\n")
    importlib.reload(sys.modules[HELPER])
    assert key(importlib.reload(steps).marked()) != edited


def test_a_key_that_was_asked_for_before_does_not_hide_it(steps: ModuleType, tmp_path: Path) -> None:
    before = key(steps.marked())
    assert key(steps.marked()) == before
    edit(tmp_path / f"{HELPER}.py", "def mark(): return 'another'\n")
    with pytest.raises(UsageError, match="was edited after it was imported"):
        key(steps.marked())


def test_a_module_that_the_step_does_not_reach_may_be_edited(steps: ModuleType, tmp_path: Path) -> None:
    before = key(steps.marked())
    (tmp_path / "other_of_edited_modules.py").write_text("X = 1\n")
    importlib.import_module("other_of_edited_modules")
    edit(tmp_path / "other_of_edited_modules.py", "X = 2\n")
    assert key(steps.marked()) == before


def test_a_script_that_edits_itself_says_run_it_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    told = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert f"module '__main__' was edited after it was imported ({script}): run it again" in told.stderr
    assert not (tmp_path / "store" / "script" / "marked").exists()
