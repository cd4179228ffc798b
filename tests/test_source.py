from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from normloom import source
from normloom.source import source_digests

FILES = {
    "weave/__init__.py": "",
    "weave/stage.py": """
        from weave.helper import twice
        from weave import table as t
        from typing import TYPE_CHECKING

        LIMIT = 3

        def run(rows):
            return [t.FACTOR * twice(row) for row in rows if row < LIMIT]

        def unrelated(rows):
            return rows
    """,
    "weave/helper.py": """
        from weave.deep import once

        def twice(row):
            '''Docs.'''
            return once(row) + once(row)

        def other(row):
            return row
    """,
    "weave/deep.py": """
        try:
            SIGN = 1
        except ImportError:
            SIGN = -1

        def once(row):
            return SIGN * row
    """,
    "weave/table.py": """
        FACTOR = 2
        UNUSED = 5
    """,
    "weave/lazy.py": """
        def run(rows):
            from weave import deep
            return use(deep, rows)

        def use(module, rows):
            return [module.once(row) for row in rows]
    """,
}


class Project:
    """A small package on the path, whose files tests change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, text in FILES.items():
            self.write(name, textwrap.dedent(text))

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def digests(self, module: str = "weave.stage") -> dict[str, str]:
        source._parse.cache_clear()
        source._follow.cache_clear()
        source._file_of.cache_clear()
        importlib.invalidate_caches()
        return source_digests([(module, "run")])

    def replace(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text()
        assert old in text
        (self.root / name).write_text(text.replace(old, new))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Project(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "weave"]:
        del sys.modules[name]


def test_follows_names_through_imports_and_no_further(project: Project) -> None:
    assert list(project.digests()) == [
        "weave.deep:SIGN",
        "weave.deep:once",
        "weave.helper:twice",
        "weave.stage:LIMIT",
        "weave.stage:run",
        "weave.table:FACTOR",
    ]


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("weave/deep.py", "SIGN * row", "row * SIGN", "weave.deep:once"),
        ("weave/deep.py", "SIGN = -1", "SIGN = -2", "weave.deep:SIGN"),
        ("weave/stage.py", "LIMIT = 3", "LIMIT = 4", "weave.stage:LIMIT"),
        ("weave/table.py", "FACTOR = 2", "FACTOR = 3", "weave.table:FACTOR"),
    ],
)
def test_a_change_two_imports_away_shows(project: Project, file: str, old: str, new: str, changed: str) -> None:
    before = project.digests()
    project.replace(file, old, new)
    after = project.digests()
    assert {name for name in before if before[name] != after[name]} == {changed}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("weave/helper.py", "Docs.", "Other docs."),
        ("weave/helper.py", "return once(row) + once(row)", "return once(row) + once(row)  # twice"),
        ("weave/stage.py", "def unrelated(rows):\n    return rows", "def unrelated(rows):\n    return None"),
        ("weave/helper.py", "def other(row):\n    return row", "def other(row):\n    return 0"),
        ("weave/table.py", "UNUSED = 5", "UNUSED = 6"),
    ],
)
def test_comments_docstrings_and_unrelated_code_do_not_count(project: Project, file: str, old: str, new: str) -> None:
    before = project.digests()
    project.replace(file, old, new)
    assert project.digests() == before


def test_a_module_that_is_passed_on_counts_whole(project: Project) -> None:
    assert {"weave.deep:SIGN", "weave.deep:once", "weave.lazy:use"} <= set(project.digests("weave.lazy"))


def test_a_stage_of_the_product_reaches_its_helpers_and_not_the_command_line() -> None:
    found = source_digests([("normloom.tasks.judge", "judge")])
    assert {
        "normloom.tasks.judge:verdict_of",
        "normloom.tasks.judge:text_fault",
    } <= set(found)
    assert not [name for name in found if name.startswith(("normloom.flows.", "normloom.pool", "normloom.runner"))]


@pytest.mark.parametrize(
    ("asking", "deciding"),
    [
        ("judge:score", {"judge:judge", "judge:verdict_of", "judge:text_fault"}),
        ("classify:score_labels", {"classify:classify"}),
        (
            "classify:embed",
            {"classify:score_labels_by_embedding", "classify:classify", "calibration:probabilities"},
        ),
        ("semantic_type:score_types", {"semantic_type:semantic_type"}),
        ("detect:write", {"detect:read", "detect:verdict_of"}),
    ],
)
def test_what_asks_a_model_does_not_reach_what_is_made_of_its_answers(asking: str, deciding: set[str]) -> None:
    module, _, function = asking.partition(":")
    found = source_digests([(f"normloom.tasks.{module}", function)])
    assert f"normloom.tasks.{asking}" in found
    assert not {f"normloom.tasks.{name}" for name in deciding} & set(found)


def test_kernels_behind_decorators_are_reached() -> None:
    found = source_digests([("normloom.tasks.deduplicate", "deduplicate")])
    assert any(name.startswith("normloom.near_duplicates:") for name in found)
    assert any(name.startswith("normloom.simhash:") for name in found)
