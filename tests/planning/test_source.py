from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from normloom.planning.code.source import ReachedSource, source_of

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
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(textwrap.dedent(text))

    def source(self, module: str = "weave.stage") -> ReachedSource:
        importlib.invalidate_caches()
        return source_of([(module, "run")])

    def replace(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text()
        assert old in text
        (self.root / name).write_text(text.replace(old, new))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Project(tmp_path)
    forget("weave")


def forget(package: str) -> None:
    inside = f"{package}."
    for name in [name for name in sys.modules if name.startswith(inside) or name == package]:
        del sys.modules[name]


def test_follows_names_through_imports_and_no_further(project: Project) -> None:
    assert list(project.source().symbols) == [
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
        ("weave/deep.py", "except ImportError", "except OSError", "weave.deep:SIGN"),
        ("weave/stage.py", "LIMIT = 3", "LIMIT = 4", "weave.stage:LIMIT"),
        ("weave/table.py", "FACTOR = 2", "FACTOR = 3", "weave.table:FACTOR"),
    ],
)
def test_a_change_two_imports_away_shows(project: Project, file: str, old: str, new: str, changed: str) -> None:
    before = project.source()
    project.replace(file, old, new)
    after = project.source()
    assert before.digest != after.digest
    assert {name for name in before.symbols if before.symbols[name] != after.symbols[name]} == {changed}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("weave/helper.py", "Docs.", "Other docs."),
        ("weave/helper.py", "return once(row) + once(row)", "return (once(row)\n        + once(row))  # twice"),
        ("weave/stage.py", "def unrelated(rows):\n    return rows", "def unrelated(rows):\n    return None"),
        ("weave/helper.py", "def other(row):\n    return row", "def other(row):\n    return 0"),
        ("weave/table.py", "UNUSED = 5", "UNUSED = 6"),
        ("weave/helper.py", "from weave.deep import once\n", "from .deep import once as once\n"),
        ("weave/stage.py", "from weave import table as t\n", "import weave.table as t\n"),
    ],
)
def test_comments_docstrings_imports_and_unrelated_code_do_not_count(
    project: Project, file: str, old: str, new: str
) -> None:
    before = project.source()
    project.replace(file, old, new)
    assert project.source() == before


def test_moving_and_renaming_modules_changes_no_digest(project: Project) -> None:
    before = project.source()
    (project.root / "weave/inner").mkdir()
    project.write("weave/inner/__init__.py", "")
    (project.root / "weave/deep.py").rename(project.root / "weave/inner/shallow.py")
    project.replace("weave/helper.py", "weave.deep", "weave.inner.shallow")
    (project.root / "weave").rename(project.root / "woven")
    for file in ("helper.py", "stage.py"):
        project.replace(f"woven/{file}", "weave", "woven")
    after = project.source("woven.stage")
    forget("woven")
    assert after.digest == before.digest
    assert "woven.inner.shallow:once" in after.symbols


def test_two_functions_that_change_places_are_a_change(project: Project) -> None:
    project.write("weave/one.py", "def f(x):\n    return x\n")
    project.write("weave/two.py", "def f(x):\n    return -x\n")
    text = "from weave import one, two\n\ndef run(rows):\n    return {}.f(rows), {}.f(1)\n"
    project.write("weave/both.py", text.format("one", "two"))
    before = project.source("weave.both")
    project.write("weave/both.py", text.format("two", "one"))
    assert project.source("weave.both").digest != before.digest


def test_a_name_of_an_installed_package_is_part_of_the_digest(project: Project) -> None:
    project.write("weave/rounding.py", "from math import floor as cut\n\ndef run(rows):\n    return cut(rows)\n")
    before = project.source("weave.rounding")
    project.write("weave/rounding.py", "from math import ceil as cut\n\ndef run(rows):\n    return cut(rows)\n")
    assert project.source("weave.rounding").digest != before.digest


def test_a_module_that_is_passed_on_counts_whole(project: Project) -> None:
    assert {"weave.deep:SIGN", "weave.deep:once", "weave.lazy:use"} <= set(project.source("weave.lazy").symbols)


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("TABLE = {}\nTABLE.update(a=1)\n", "a=1", "a=2"),
        ("TABLE = {}\nTABLE['a'] = 1\n", "= 1", "= 2"),
        ("TABLE = []\nfor one in range(3):\n    TABLE.append(one)\n", "range(3)", "range(4)"),
        ("import sys\nTABLE = 1\nif sys.platform == 'linux':\n    TABLE = 2\n", "'linux'", "'win32'"),
        ("import random\nrandom.seed(1)\nTABLE = 1\n", "seed(1)", "seed(2)"),
        ("from weave.more import *\n", "weave.more", "weave.other"),
        ("def fill(x):\n    return 1\n\n@fill\ndef TABLE():\n    return 0\n", "return 1", "return 2"),
        ("TABLE: int = 1\n", "= 1", "= 2"),
        ("with open(__file__) as TABLE:\n    pass\n", "__file__", "'x'"),
        ("class Kind:\n    def get(self):\n        return 1\n\nTABLE = Kind()\n", "return 1", "return 2"),
    ],
)
def test_all_that_makes_a_name_what_it_is_counts(project: Project, text: str, old: str, new: str) -> None:
    project.write("weave/more.py", "TABLE = 1\n")
    project.write("weave/other.py", "TABLE = 2\n")
    project.write("weave/filled.py", text)
    project.write("weave/reading.py", "from weave.filled import TABLE\n\ndef run(rows):\n    return TABLE\n")
    before = project.source("weave.reading")
    project.replace("weave/filled.py", old, new)
    assert project.source("weave.reading").digest != before.digest


def test_a_local_variable_is_no_reference(project: Project) -> None:
    project.write("weave/local.py", "other = 1\n\ndef run(rows):\n    other = rows\n    return other\n")
    assert list(project.source("weave.local").symbols) == ["weave.local:run"]


def test_a_second_package_of_the_user_is_followed_and_an_installed_one_is_not(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project.write("beside.py", "def helped(x):\n    return x\n")
    project.write("venv/site-packages/installed.py", "def bought(x):\n    return x\n")
    project.write("spaces/of/names.py", "def named(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path / "venv/site-packages"))
    project.write(
        "weave/wide.py",
        """
        import beside, installed, spaces.of.names

        def run(rows):
            return beside.helped(rows) + installed.bought(rows) + spaces.of.names.named(rows)
        """,
    )
    found = project.source("weave.wide")
    assert set(found.symbols) == {"weave.wide:run", "beside:helped", "spaces.of.names:named"}
    assert found.packages == {"installed"}


class Mapped:
    """Finds one package elsewhere, as the finders of editable installs do (setuptools' `__editable__` modules)."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path

    def find_spec(self, name: str, *_: object) -> object:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(
            name, self.path / "__init__.py", submodule_search_locations=[str(self.path)]
        )


def test_a_package_that_is_installed_for_editing_is_followed(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project.write("elsewhere/src/shed/__init__.py", "")
    project.write("elsewhere/src/shed/tools.py", "def saw(x):\n    return x\n")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Mapped("shed", tmp_path / "elsewhere/src/shed")])
    project.write("weave/tooled.py", "from shed.tools import saw\n\ndef run(rows):\n    return saw(rows)\n")
    before = project.source("weave.tooled")
    assert "shed.tools:saw" in before.symbols
    project.write("elsewhere/src/shed/tools.py", "def saw(x):\n    return -x\n")
    assert project.source("weave.tooled").digest != before.digest


def test_a_stage_of_the_product_reaches_its_helpers_and_not_the_command_line() -> None:
    found = source_of([("normloom.tasks.rejection.judge", "judge")]).symbols
    assert {
        "normloom.tasks.rejection.judge:verdict_of",
        "normloom.tasks.rejection.judge:text_fault",
    } <= set(found)
    assert not [
        name for name in found if name.startswith(("normloom.flows.", "normloom.workers.pool", "normloom.run.runner"))
    ]


@pytest.mark.parametrize(
    ("asking", "deciding"),
    [
        (
            "rejection.judge:score",
            {"rejection.judge:judge", "rejection.judge:verdict_of", "rejection.judge:text_fault"},
        ),
        ("prompts.classify:score_labels", {"prompts.classify:classify"}),
        (
            "prompts.classify:embed",
            {
                "prompts.classify:score_labels_by_embedding",
                "prompts.classify:classify",
                "prompts.calibration:probabilities",
            },
        ),
        ("prompts.semantic_type:score_types", {"prompts.semantic_type:semantic_type"}),
        ("benchmark.detect:write", {"benchmark.detect:read", "benchmark.detect:verdict_of"}),
    ],
)
def test_what_asks_a_model_does_not_reach_what_is_made_of_its_answers(asking: str, deciding: set[str]) -> None:
    module, _, function = asking.partition(":")
    found = source_of([(f"normloom.tasks.{module}", function)]).symbols
    assert f"normloom.tasks.{asking}" in found
    assert not {f"normloom.tasks.{name}" for name in deciding} & set(found)


def test_kernels_behind_decorators_are_reached() -> None:
    found = source_of([("normloom.tasks.duplicates.duplicates", "duplicates")]).symbols
    assert any(name.startswith("normloom.near_duplicates.find:") for name in found)
    assert any(name.startswith("normloom.near_duplicates.simhash:") for name in found)


def test_a_compiled_module_of_the_user_counts_whole(project: Project) -> None:
    compiled = project.root / f"weave/fast{EXTENSION_SUFFIXES[0]}"
    compiled.write_bytes(b"one")
    project.write("weave/quick.py", "from weave.fast import go\ndef run(rows):\n    return go(rows)\n")
    before = project.source("weave.quick")
    assert any(name.startswith("weave.fast:") for name in before.symbols)
    compiled.write_bytes(b"two")
    forget("weave")
    assert project.source("weave.quick").digest != before.digest
    compiled.unlink()
    assert not any(name.startswith("weave.fast:") for name in project.source("weave.quick").symbols)


def test_a_name_that_a_module_does_not_have_is_the_modules_own_matter(project: Project) -> None:
    project.write(
        "weave/made.py",
        """
        import weave.table

        def run(rows):
            return [weave.table.SET_BY_A_TEST for row in rows]
    """,
    )
    before = project.source("weave.made")
    project.replace("weave/table.py", "UNUSED = 5", "UNUSED = 6")
    assert project.source("weave.made") != before  # whatever is read of it may come from any of it


def test_a_module_that_is_run_knows_its_package(project: Project) -> None:
    project.write(
        "weave/main.py",
        """
        from .helper import twice

        def run(rows):
            return [twice(row) for row in rows]

        if __name__ == "__main__":
            from normloom.planning.code.source import source_of

            print(*source_of([("__main__", "run")]).symbols)
    """,
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(project.root), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-m", "weave.main"], env=environment, capture_output=True, check=True, text=True
    )
    assert {"weave.helper:twice", "weave.deep:once"} <= set(done.stdout.split())
