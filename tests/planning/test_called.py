"""What of a stage's function enters its key, whatever sort of function it is."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import linecache
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import BaseModel, ConfigDict

from normloom.core.contract import Contract
from normloom.core.errors import ConfigError, UsageError
from normloom.core.stage import Output, Stage
from normloom.planning.canonical import canonical
from normloom.planning.code.called import Called
from normloom.planning.code.source import source_of
from normloom.planning.keys import LIBRARIES, key_fields, stage_key
from normloom.settings.config import load_profile, validated
from normloom.settings.systems import system_named, system_names
from normloom.steps.graph import stages_of
from normloom.testing.toy import ECHOES, Echo, words_stage


def stage_of(function: Callable[..., Output], **fields: Any) -> Stage:
    return Stage(
        name="step", function=function, arguments=Echo(), contract=ECHOES, inputs=(words_stage("a"),), **fields
    )


def key(function: Callable[..., Output], **fields: Any) -> str:
    return stage_key(key_fields("toy", stage_of(function, **fields), inputs=["x"], sides=[]))


@dataclass(frozen=True)
class Given:
    value: int

    def taken(self, rows: pl.DataFrame, arguments: Echo) -> Output:  # noqa: ARG002  # called as stages are
        return Output(rows=rows.head(self.value))

    @staticmethod
    def head(rows: pl.DataFrame, arguments: Echo) -> Output:  # noqa: ARG004  # called as stages are
        return Output(rows=rows.head(1))

    @staticmethod
    def tail(rows: pl.DataFrame, arguments: Echo) -> Output:  # noqa: ARG004  # called as stages are
        return Output(rows=rows.tail(1))


class Setting(BaseModel):
    model_config = ConfigDict(frozen=True)
    value: int


def made(k: object) -> Callable[..., Output]:
    def inner(rows: pl.DataFrame, arguments: Echo) -> Output:  # noqa: ARG001  # called as stages are
        return Output(rows=rows.head(k))  # type: ignore[arg-type]

    return inner


def made_by_default(k: int) -> Callable[..., Output]:
    def inner(rows: pl.DataFrame, arguments: Echo, k: int = k) -> Output:  # noqa: ARG001  # called as stages are
        return Output(rows=rows.head(k))

    return inner


def two(first: bool) -> Callable[..., Output]:
    return (
        (lambda rows, arguments: Output(rows=rows))  # noqa: ARG005  # as stages are called
        if first
        else (
            lambda rows, arguments: Output(rows=rows.head(1))  # noqa: ARG005  # called as stages are
        )
    )


def at_most(rows: pl.DataFrame, arguments: Echo, *, most: int = 3) -> Output:  # noqa: ARG001  # called as stages are
    return Output(rows=rows.head(most))


def taking(most: int, rows: pl.DataFrame, arguments: Echo) -> Output:  # noqa: ARG001  # called as stages are
    return Output(rows=rows.head(most))


# fmt: off
alike = [lambda rows, arguments: Output(rows=rows), lambda rows, arguments: Output(rows=rows.head(1))]  # noqa: ARG005  # called as stages are
# fmt: on
lambda_stage = lambda rows, arguments: Output(rows=rows)  # noqa: E731, ARG005  # called as stages are


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (made(5), made(9)),
        (made((1, "a", None)), made((1, "b", None))),
        (made({"a": [1]}), made({"a": [2]})),
        (made(Given(1)), made(Given(2))),
        (made(Setting(value=1)), made(Setting(value=2))),
        (made(at_most), made(made)),
        (made(made(1)), made(made(2))),
        (made_by_default(5), made_by_default(9)),
        (two(first=True), two(first=False)),
        (functools.partial(at_most, most=1), functools.partial(at_most, most=2)),
        (functools.partial(taking, 1), functools.partial(taking, 2)),
        (Given(1).taken, Given(2).taken),
        (Given.head, Given.tail),
        (made(json), made(csv)),
    ],
)
def test_values_that_a_function_holds_enter_the_key(one: Callable[..., Output], other: Callable[..., Output]) -> None:
    assert key(one) != key(other)
    assert key(one) == key(one)


def test_functions_made_alike_have_one_key() -> None:
    assert key(made(5)) == key(made(5))
    assert key(lambda_stage) == key(lambda_stage)


@pytest.mark.parametrize("value", [object(), pl.DataFrame({"a": [1]}), print])
def test_a_function_that_holds_anything_else_is_refused_naming_the_variable(value: object) -> None:
    with pytest.raises(UsageError, match=r"^stage 'step': .*'k'.*"):
        key(made(value))


def test_two_functions_of_one_line_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"2 functions named '<lambda>' are on line \d+ of .*: write .* line of its own"
    ):
        key(alike[0])


def test_a_function_without_source_is_refused() -> None:
    namespace: dict[str, Any] = {"__name__": "nowhere"}
    exec("def step(rows, arguments):\n    return rows", namespace)
    with pytest.raises(UsageError, match=r"stage 'step': the source of function 'step' .* cannot be found"):
        key(namespace["step"])
    with pytest.raises(UsageError, match="stage 'step'"):
        key(len)  # type: ignore[arg-type]


class Notebook:
    """Runs cells as a kernel does: one namespace, and the text of each cell in `linecache`, named by that text."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__", "In": [""]}

    def run(self, cell: str) -> None:
        text = textwrap.dedent(cell)
        name = f"<cell {hashlib.sha256(text.encode()).hexdigest()}>"
        self.names.get("In", []).append(text)
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        if not text.startswith("%"):  # a kernel keeps what is no Python, too
            exec(compile(text, name, "exec"), self.names)

    def key(self, name: str = "tone") -> str:
        return key(self.names[name])


TONE = "def tone(rows, arguments):\n    return helper(rows, LIMIT)\n"


@pytest.fixture
def notebook() -> Notebook:
    found = Notebook()
    found.run("LIMIT = 3\ndef helper(rows, k):\n    return rows.head(k)")
    found.run(TONE)
    return found


@pytest.mark.parametrize(
    "cell",
    [
        "def tone(rows, arguments):\n    return helper(rows, LIMIT + 1)",
        "def helper(rows, k):\n    return rows.tail(k)",
        "LIMIT = 4",
    ],
)
def test_a_cell_that_is_edited_changes_the_key(notebook: Notebook, cell: str) -> None:
    before = notebook.key()
    notebook.run(cell)
    assert notebook.key() != before


@pytest.mark.parametrize("cell", [TONE, "'''Docs.'''\n\n" + TONE + "    # why", "rows = object()", "other = 3"])
def test_a_cell_that_is_run_again_changes_nothing(notebook: Notebook, cell: str) -> None:
    before = notebook.key()
    notebook.run(cell)
    assert notebook.key() == before


LIMITS = "class Limits:\n    most = 3\n"
HIDDEN = "import re\nWORDS = re.compile('a|b')\nKIND = list[int]\nfrom json import dumps\n"
READS = "def tone(rows, arguments):\n    return rows.head(Limits.most), WORDS, KIND, dumps\n"


WITH_METHOD = LIMITS + "    def least(self):\n        return 0\n"


@pytest.mark.parametrize(("definition", "history"), [(LIMITS, True), (WITH_METHOD, True), (WITH_METHOD, False)])
def test_a_class_that_is_edited_and_edited_back_has_its_first_key_again(
    notebook: Notebook, definition: str, history: bool
) -> None:
    if not history:
        del notebook.names["In"]
    for text in (definition, HIDDEN, READS):
        notebook.run(text)
    before = notebook.key()
    notebook.run(definition.replace("3", "4"))
    assert notebook.key() != before
    notebook.run(definition)
    assert notebook.key() == before


@pytest.mark.parametrize(
    "cell",
    [
        LIMITS.replace("3", "4"),
        HIDDEN.replace("a|b", "a|c"),
        HIDDEN.replace("int", "str"),
        HIDDEN.replace("json import dumps", "pickle import dumps"),
    ],
)
def test_classes_patterns_types_and_imports_of_cells_count(notebook: Notebook, cell: str) -> None:
    for text in (LIMITS, "%no Python", HIDDEN, READS):
        notebook.run(text)
    before = notebook.key()
    notebook.run(LIMITS + "    # as it was")
    assert notebook.key() == before
    notebook.run(cell)
    assert notebook.key() != before


MAKES = "def make(k):\n    def inner(rows):\n        return rows.head(k)\n    return inner\n"
BY_DEFAULT = "def make(k):\n    return lambda rows, most=k: rows.head(most)\n"
CALLS = "def tone(rows, arguments):\n    return helper(rows)\n"


@pytest.mark.parametrize(
    ("cells", "old", "new"),
    [
        ([MAKES, CALLS], "helper = make(3)", "helper = make(4)"),
        ([BY_DEFAULT, CALLS], "helper = make(3)", "helper = make(4)"),
        (["from test_called import made as make", CALLS], "helper = make(3)", "helper = make(4)"),
        (["from test_called import Given", CALLS], "helper = Given(3).taken", "helper = Given(4).taken"),
    ],
)
def test_what_helpers_of_a_notebook_hold_counts(notebook: Notebook, cells: list[str], old: str, new: str) -> None:
    for cell in (*cells, old):
        notebook.run(cell)
    before = notebook.key()
    notebook.run(old)
    assert notebook.key() == before
    notebook.run(new)
    assert notebook.key() != before


def test_a_helper_of_a_notebook_that_holds_anything_else_is_refused(notebook: Notebook) -> None:
    for cell in (MAKES, "helper = make(object())", CALLS):
        notebook.run(cell)
    with pytest.raises(UsageError, match=r"reads the variable 'k', a object, which cannot enter its key"):
        notebook.key()
    notebook.run("from collections import namedtuple\nPair = namedtuple('Pair', 'a b')")
    notebook.run("def tone(rows, arguments):\n    return Pair(rows, 1)")
    with pytest.raises(UsageError, match=r"the source of class 'Pair' \(module __main__\) cannot be found"):
        notebook.key()


def test_a_function_that_was_defined_again_since_keeps_its_key(notebook: Notebook) -> None:
    first = notebook.names["tone"]
    before = key(first)
    notebook.run("def tone(rows, arguments):\n    return rows")
    assert key(first) == before != notebook.key()


def test_a_variable_of_a_notebook_that_cannot_enter_a_key_is_named(notebook: Notebook) -> None:
    notebook.run("frame = object()\ndef tone(rows, arguments):\n    return frame")
    with pytest.raises(UsageError, match=r"stage 'step': .* reads the variable 'frame', a object, .* argument"):
        notebook.key()


SCRIPT = """
from normloom.planning.keys import key_fields, stage_key
from normloom.testing.toy import ECHOES, Echo, words_stage
from normloom.core.stage import Stage

LIMIT = 3

def step(rows, arguments):
    return rows.head(LIMIT)

if __name__ == "__main__":
    stage = Stage(name="step", function=step, arguments=Echo(), contract=ECHOES, inputs=(words_stage("a"),))
    print(stage_key(key_fields("toy", stage, inputs=["x"], sides=[])))
"""


def test_a_function_of_a_script_counts_with_what_it_reaches(tmp_path: Path) -> None:
    def key_of(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(text)
        done = subprocess.run(
            [sys.executable, path], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
        )
        return done.stdout

    plain = key_of("script.py", SCRIPT)
    assert key_of("renamed.py", SCRIPT + "    print(end='')\n") == plain
    assert key_of("script.py", SCRIPT.replace("LIMIT = 3", "LIMIT = 4")) != plain
    assert key_of("script.py", SCRIPT.replace("rows.head", "rows.tail")) != plain


def test_libraries_enter_the_key_with_their_versions() -> None:
    fields = key_fields("toy", stage_of(at_most, libraries=("numpy", "scikit-learn")), inputs=["x"], sides=[])
    assert set(fields["libraries"]) == {"numpy", "scikit-learn", "polars"}
    newer = {**fields, "libraries": {**fields["libraries"], "numpy": "99"}}
    assert stage_key(newer) != stage_key(fields)
    with pytest.raises(ConfigError, match="stage 'step' declares the library 'sklearn', which is not installed"):
        key(at_most, libraries=("sklearn",))


def test_names_stand_beside_the_key() -> None:
    fields = key_fields("toy", stage_of(at_most), inputs=["x"], sides=[])
    assert fields["function"] == "test_called:at_most"
    assert "test_called:at_most" in fields["source"]
    assert stage_key({**fields, "function": "elsewhere:at_most", "source": {}}) == stage_key(fields)
    assert stage_key({**fields, "code": "other"}) != stage_key(fields)


def test_the_class_of_the_arguments_counts() -> None:
    class Lean(BaseModel):
        @property
        def twice(self) -> int:
            return 2

    stage = Stage(name="step", function=lambda_stage, arguments=Lean(), contract=Contract(columns={}))
    assert any(
        name.startswith("test_called:test_the_class") for name in key_fields("t", stage, inputs=[], sides=[])["source"]
    )


PLUMBING = {
    "ray": "carries functions to other processes",
    "pydantic_core": "checks arguments, which enter the key as they come out",
    "pydantic": "checks arguments, which enter the key as they come out",
    "fsspec": "fetches bytes, whose digest is in the key",
    "httpx": "fetches bytes, whose digest is in the key",
    "huggingface_hub": "fetches bytes, whose digest is in the key",
    "obstore": "keeps bytes, whose digest is in the key",
    "blake3": "verifies that files are as they were written",
}


@pytest.fixture(scope="module")
def distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


@pytest.mark.parametrize("name", system_names())
@pytest.mark.parametrize("profile", ["local", "paper"])
def test_every_library_that_a_stage_reaches_is_declared_or_decides_nothing(
    name: str, profile: str, distributions: Mapping[str, list[str]]
) -> None:
    system = system_named(name)
    config, _ = validated(system.config, load_profile(profile, system.name))
    lacking = {}
    for stage in stages_of(*system.flow(config)):
        called = Called(canonical)
        called.add(stage.function)
        called.add_type(type(stage.arguments))
        reached = source_of(called.roots).packages - sys.stdlib_module_names - PLUMBING.keys()
        needed = {distribution for package in reached for distribution in distributions.get(package, [package])}
        if undeclared := needed - {*stage.libraries, *LIBRARIES}:
            lacking[stage.name] = undeclared
    assert not lacking


def test_what_is_met_twice_and_classes_count_once() -> None:
    called = Called(canonical)
    called.add(at_most)
    roots = list(called.roots)
    called.add(at_most)
    assert called.roots == roots
    called.add(Given)
    assert called.roots == [*roots, (__name__, "Given")]
