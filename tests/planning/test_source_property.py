"""Digests of generated packages: they change with behaviour and with nothing else."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normloom.planning.code.source import source_of

IMPORTS = {  # how a module may take `value` of another one, and what it is called then
    "from": ("from {package}.{module} import value", "value"),
    "from as": ("from {package}.{module} import value as other", "other"),
    "relative": ("from .{module} import value", "value"),
    "module": ("from {package} import {module}", "{module}.value"),
    "dotted": ("import {package}.{module}", "{package}.{module}.value"),
    "module as": ("import {package}.{module} as m", "m.value"),
    "star": ("from {package}.{module} import *", "value"),
    "inside": ("", "value"),
}


BODIES = {  # ways to make `value(x)` of a number and of what is imported
    "function": "def value(x):\n    return x + {number} + {inner}(x)\n",
    "constant": "LIMIT = {number}\n\ndef value(x):\n    return x * LIMIT + {inner}(x)\n",
    "class": (
        "class Kind:\n    step = {number}\n\n    def __call__(self, x):\n        return x + self.step + {inner}(x)\n\n"
        "value = Kind()\n"
    ),
    "branch": "if {number} % 2:\n    SIGN = 1\nelse:\n    SIGN = -1\n\n"
    "def value(x):\n    return SIGN * {number} + {inner}(x)\n",
    "table": "TABLE = {{}}\nTABLE['a'] = {number}\n\ndef value(x):\n    return TABLE['a'] + {inner}(x)\n",
    "loop": "TOTAL = 0\nfor one in range({number}):\n    TOTAL += one + 1\n\n"
    "def value(x):\n    return TOTAL + {inner}(x)\n",
    "decorated": (
        "def more(function):\n    def changed(x):\n        return function(x) + {number}\n    return changed\n\n"
        "@more\ndef value(x):\n    return {inner}(x)\n"
    ),
    "lambda": "value = lambda x: x + {number} + {inner}(x)\n",
}


@st.composite
def packages(draw: st.DrawFn) -> list[tuple[str, str, int]]:
    """Three modules that each import the next: how, what they make of it, and their number."""
    ways = st.tuples(st.sampled_from(sorted(IMPORTS)), st.sampled_from(sorted(BODIES)), st.integers(1, 5))
    return [draw(ways) for _ in range(3)]


def written(
    root: Path, package: str, names: list[str], made: list[tuple[str, str, int]], *, dressed: bool = False
) -> None:
    """Write a package of modules with these names, with comments, docstrings and blank lines if it is dressed."""
    folder = root / package
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Docs."""\n' if dressed else "")
    (folder / f"{names[3]}.py").write_text("def value(x):\n    return x\n")
    for place, (way, body, number) in enumerate(made):
        line, inner = (part.format(package=package, module=names[place + 1]) for part in IMPORTS[way])
        text = BODIES[body].format(number=number, inner=inner)
        if way == "inside":  # within a function of its own, so that every body can call it
            text = (
                f"def _inner(x):\n    from {package}.{names[place + 1]} import value\n    return value(x)\n\n"
                + BODIES[body].format(number=number, inner="_inner")
            )
        if way in ("from", "relative", "star"):  # the module's own `value` would hide it
            text = "_inner = value\n\n" + BODIES[body].format(number=number, inner="_inner")
        if dressed:
            text = text.replace("(x):\n    return", '(x):\n    """Docs."""\n\n    # why\n    return')
            text = f"# dressed\n\n{text}\n\nUNUSED = 1\n"
        (folder / f"{names[place]}.py").write_text(f"{line}\n\n{text}")


def behaviour(root: Path, package: str, module: str) -> list[int]:
    sys.path.insert(0, str(root))
    try:
        value = importlib.import_module(f"{package}.{module}").value
        return [value(x) for x in range(-2, 3)]
    finally:
        sys.path.remove(str(root))
        for path in (root / package).glob("*.py"):  # `forget` looks at all modules there are
            sys.modules.pop(f"{package}.{path.stem}", None)
        del sys.modules[package]


def digest(root: Path, package: str, module: str) -> str:
    sys.path.insert(0, str(root))
    try:
        return source_of([(f"{package}.{module}", "value")]).digest
    finally:
        sys.path.remove(str(root))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the packages of all examples: for a new path, all of Normloom would be looked for again."""
    return tmp_path_factory.mktemp("generated")


_NUMBERS = itertools.count()


@settings(max_examples=200)
@given(made=packages(), changed=st.integers(0, 2), by=st.integers(1, 3))
def test_a_digest_changes_with_behaviour_and_with_nothing_else(
    root: Path, made: list[tuple[str, str, int]], changed: int, by: int
) -> None:
    example = next(_NUMBERS)
    plain, dressed, renamed, altered = (f"{kind}{example}" for kind in ("plain", "dressed", "renamed", "altered"))
    written(root, plain, ["a", "b", "c", "d"], made)
    written(root, dressed, ["a", "b", "c", "d"], made, dressed=True)
    written(root, renamed, ["e", "f", "g", "h"], made)
    other = [(way, body, number + by if place == changed else number) for place, (way, body, number) in enumerate(made)]
    written(root, altered, ["a", "b", "c", "d"], other)
    sys.path_importer_cache.pop(str(root), None)  # it may have changed within a tick of its clock
    first = digest(root, plain, "a")
    assert digest(root, dressed, "a") == first
    assert digest(root, renamed, "e") == first
    assert behaviour(root, plain, "a") != behaviour(root, altered, "a")
    assert digest(root, altered, "a") != first
