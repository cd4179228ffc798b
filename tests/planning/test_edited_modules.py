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


RELOADING = f"""
import importlib, pathlib, {HELPER} as helper
from normloom.planning.keys import key_fields
path = pathlib.Path(helper.__file__)
path.write_text("def mark(): return 'another'")
importlib.reload(helper)
print(helper.mark())
key_fields("mine", marked(), inputs=[], sides=[])
"""


def key(stage: Stage) -> str:
    return stage_key(key_fields("mine", stage, inputs=[], sides=[]))


def edit(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000_000))  # whatever the clock's ticks


@pytest.fixture(autouse=True)
def imported_anew() -> Iterator[None]:
    yield
    for name in (HELPER, "steps_of_edited_modules"):
        sys.modules.pop(name, None)


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with a step that calls a helper of another module."""
    (tmp_path / f"{HELPER}.py").write_text("def mark(): return 'one'\n")
    (tmp_path / "steps_of_edited_modules.py").write_text(STEPS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return importlib.import_module("steps_of_edited_modules")


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


DECORATOR = "def same(f):\n    @functools.wraps(f)\n    def call(): return f()\n    return call\n"
SEVERAL = """
import functools

@functools.singledispatch
def mark(x): return 'one'

@mark.register
def _(x: int): return 'int'

@mark.register
def _(x: str): return 'two'
"""
REFUSED = {
    "a function": ("def mark(): return 'one'", "", "mark()", "mark"),
    "a function inside": ("def mark(): return (lambda: 'one')()", "", "mark()", "mark"),
    "a default": ("def mark(text='one'): return text", "", "mark()", "mark"),
    "a decorated function": (
        f"import functools\n{DECORATOR}@same\ndef mark(): return 'one'",
        "",
        "mark()",
        "mark",
    ),
    "a decorator that hides it": (
        "def same(f):\n    return lambda: f()\n@same\ndef mark(): return 'one'",
        "",
        "mark()",
        "mark",
    ),
    "a cache": ("import functools\n@functools.cache\ndef mark(): return 'one'", "", "mark()", "mark"),
    "a method": (
        "class mark:\n    @property\n    def x(self): return 'one'",
        "",
        "mark().x",
        "mark.x",
    ),
    "a base class": ("class mark:\n    def x(self): return 'one'", "class Own(mark): pass", "Own().x()", "mark.x"),
    "a collection": ("def mark(): return 'one'", "BY = {'mark': [mark]}", "BY['mark'][0]()", "mark"),
    "a partial": (
        "def mark(text): return text + 'one'",
        "import functools\nheld = functools.partial(mark, 'x')",
        "held()",
        "mark",
    ),
    "through another function": ("def mark(): return 'one'", "def inner(): return mark()", "inner()", "mark"),
    "a value": ("mark = 'one'", "", "mark", "mark"),
    "values": ("mark = {'a': ['one']}", "", "mark['a'][0]", "mark"),
}


def written(
    folder: Path, before: str, more: str, called: str, monkeypatch: pytest.MonkeyPatch, *, steps: str = STEPS
) -> ModuleType:
    """Return a module of these lines, and a step that calls what it imports from a helper."""
    edit(folder / f"{HELPER}.py", before)
    lines = steps.replace("mark()", called).replace("@nl.step", f"{more}\n@nl.step")
    edit(folder / "steps_of_edited_modules.py", lines)
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module("steps_of_edited_modules")


@pytest.mark.parametrize(("before", "more", "called", "name"), REFUSED.values(), ids=REFUSED)
def test_what_another_module_still_holds_after_a_reload_is_refused(
    before: str, more: str, called: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = written(tmp_path, before, more, called, monkeypatch)
    key(steps.marked())
    edit(tmp_path / f"{HELPER}.py", f"# moved\n\n{before}")
    importlib.reload(sys.modules[HELPER])
    key(steps.marked())  # nothing has changed
    edit(tmp_path / f"{HELPER}.py", before.replace("one", "another"))
    importlib.reload(sys.modules[HELPER])
    held = f"'{name}' of module '{HELPER}' is used in '{steps.__name__}' as it was before the module was edited and"
    with pytest.raises(UsageError, match=f"stage 'marked': {held} reloaded: import it again in '{steps.__name__}'"):
        key(steps.marked())
    key(importlib.reload(steps).marked())


def test_a_step_that_was_imported_before_its_module_was_reloaded_is_refused(steps: ModuleType, tmp_path: Path) -> None:
    marked = steps.marked
    edit(tmp_path / "steps_of_edited_modules.py", STEPS.replace("mark()", "mark() + '!'"))
    importlib.reload(steps)
    with pytest.raises(UsageError, match="'marked' of module 'steps_of_edited_modules' is used as it was before"):
        key(marked())
    key(steps.marked())


@pytest.mark.parametrize(
    ("helper", "called"),
    [
        ("def mark(): return 'one'\ndef other(): return 'two'", "mark()"),
        (SEVERAL, "mark('')"),
        ("def mark(): return 'one'\nkept = mark\ndef mark(): return kept() + 'two'", "mark()"),
    ],
    ids=["a function beside it is edited", "several functions of a name", "a name that is used again"],
)
def test_a_module_whose_names_are_bound_again_on_purpose_is_not_refused(
    helper: str, called: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = written(tmp_path, helper, "", called, monkeypatch)
    before = key(steps.marked())
    importlib.reload(sys.modules[HELPER])
    assert key(steps.marked()) == before
    if "other" in helper:
        edit(tmp_path / f"{HELPER}.py", helper.replace("two", "three"))
        importlib.reload(sys.modules[HELPER])
        assert key(steps.marked()) == before
    vars(sys.modules[HELPER])["mark"] = lambda *_: "another"
    assert key(steps.marked()) == before


def test_a_module_that_is_imported_whole_may_be_reloaded_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = STEPS.replace(f"from {HELPER} import mark", f"import {HELPER} as helper").replace("mark()", "helper.mark()")
    steps = written(tmp_path, "def mark(): return 'one'", "", "mark()", monkeypatch, steps=whole)
    before = key(steps.marked())
    edit(tmp_path / f"{HELPER}.py", "def mark(): return 'another'")
    importlib.reload(sys.modules[HELPER])
    assert key(steps.marked()) != before


def test_a_script_that_holds_a_function_of_a_reloaded_module_is_told_to_import_it(tmp_path: Path) -> None:
    (tmp_path / f"{HELPER}.py").write_text("def mark(): return 'one'\n")
    (tmp_path / "script.py").write_text(f"{STEPS}{RELOADING}")
    told = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (
        f"'mark' of module '{HELPER}' is used here as it was before the module was edited and reloaded" in told.stderr
    )
    assert told.stdout.split() == ["another"]


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
