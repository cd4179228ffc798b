from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from normloom.planning.code.source_answers import Answers
from normloom.planning.code.source_modules import followed, read_module

PACKAGES = frozenset({"woven"})
KEYS = """
import json, sys
from pathlib import Path
from normloom.planning.keys import key_fields
from normloom.settings.settings import stages_for
from normloom.steps.graph import stages_of
from normloom.store.store import Store
*_, ends = stages_for("conllm", profile="local", assignments=[], store=Store(Path(sys.argv[1])))
print(json.dumps([key_fields("conllm", stage, inputs=[], sides=[]) for stage in stages_of(*ends)]))
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `woven` of two modules, a second place in front of it, and an empty cache."""
    monkeypatch.setenv("NORMLOOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "first"))
    monkeypatch.syspath_prepend(str(tmp_path / "front"))
    package = tmp_path / "first" / "woven"
    package.mkdir(parents=True)
    for name in ("__init__", "one"):
        settle(package / f"{name}.py", f"NAME = '{name}'\n")
    importlib.invalidate_caches()
    return package


def settle(path: Path, text: str) -> None:
    """Write a file as one that has been there for a while."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    importlib.invalidate_caches()


def asked(answer: str) -> tuple[str, Answers]:
    """Ask a question whose answer depends on three modules, one of which is not there."""
    answers = Answers.kept(PACKAGES)

    def found() -> str:
        for name in ("woven", "woven.one", "woven.two"):
            path = followed(name, PACKAGES)
            answers.read(name, read_module(name, path) if path else None)
        return answer

    return answers.get(["a", "question"], found), answers


def keep(answer: str) -> None:
    _, answers = asked(answer)
    answers.keep()


def test_an_answer_is_kept_while_all_files_have_their_content(package: Path) -> None:
    keep("first")
    assert asked("second")[0] == "first"
    settle(package / "one.py", "NAME = 'one'\n")
    os.utime(package / "one.py", (1_600_000_000, 1_600_000_000))  # another time, the same content
    assert asked("second")[0] == "first"


@pytest.mark.parametrize(
    "change",
    [
        lambda package: settle(package / "one.py", "NAME = 'two'\n"),  # of the same size and time
        lambda package: settle(package / "two.py", ""),
        lambda package: (package / "one.py").unlink(),
        lambda package: settle(package.parent.parent / "front" / "woven" / "__init__.py", "NAME = '__init__'\n"),
    ],
    ids=["edited", "come", "gone", "another in front"],
)
def test_a_change_to_any_module_that_was_sought_is_noticed(package: Path, change: Any) -> None:
    keep("first")
    change(package)
    importlib.invalidate_caches()
    assert asked("second")[0] == "second"


def test_answers_of_a_file_that_changes_meanwhile_are_not_kept(package: Path) -> None:
    _, answers = asked("first")
    settle(package / "one.py", "NAME = 'two'\n")
    path = followed("woven.one", PACKAGES)
    assert path
    answers.read("woven.one", read_module("woven.one", path))
    answers.keep()
    assert asked("second")[0] == "second"


def test_a_file_that_has_just_changed_is_read_again(package: Path) -> None:
    keep("first")
    soon = time.time() + 60.0
    os.utime(package / "one.py", (soon, soon))
    assert asked("second")[0] == "second"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"modules": {"woven": 1}, "answers": {}}', "{"])
def test_what_is_no_record_of_answers_is_passed_over(package: Path, text: str) -> None:
    keep("first")
    [kept] = (package.parent.parent / "cache" / "source").iterdir()
    kept.write_text(text)
    assert asked("second")[0] == "second"


def test_keys_are_the_same_with_kept_answers_and_nothing_is_read_for_them_twice(tmp_path: Path) -> None:
    environment = {**os.environ, "NORMLOOM_CACHE": str(tmp_path / "cache")}

    def keys() -> str:
        command = [sys.executable, "-c", KEYS, str(tmp_path / "store")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    first = keys()
    [kept] = (tmp_path / "cache" / "source").iterdir()
    written = kept.stat()
    assert keys() == first
    assert kept.stat().st_ino == written.st_ino  # the second process found all answers in it
