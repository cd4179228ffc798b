"""Checks of the source of a stage's function: a stage of figures draws nothing at random, and aims at nothing."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

from normloom.core.rows.text import exact
from normloom.core.stage import Stage
from normloom.planning.canonical import canonical
from normloom.planning.code.called import Called
from normloom.planning.code.source import source_of
from normloom.planning.code.source_modules import FileModule, file_of, read_module

_GENERATORS = frozenset({"default_rng", "RandomState", "Random", "SeedSequence", "Generator", "PCG64", "MT19937"})
_SEEDED = frozenset({"seed", "rng", "generator", "random_state"})
_DRAWS = re.compile(
    r"^(?:random\.\w+|(?:np|numpy)\.random\.\w+|secrets\.\w+|uuid\.uuid[14]|uuid[14]|os\.urandom"
    r"|torch\.(?:rand\w*|normal|bernoulli|multinomial)|SystemRandom)$"
)
_METHODS = ("normloom.tasks.", "normloom.flows.")  # elsewhere a target is a file
_AIMS = re.compile(r"(?:^|_)(?:target|cap|capped|ceiling|goal)(?:$|_(?:rate|value|score|share|figure)$)")


def unclean(stage: Stage) -> list[str]:
    """Return what of the source that a stage's function reaches is not clean: unseeded draws, caps and targets.

    Draws are those of random, NumPy, secrets, uuid and PyTorch without a seed or a generator. Caps are `min`, `minimum`
    and `clip` with a literal such as 0.95, and, as targets, variables, arguments and settings of such a name. Installed
    packages are not looked into.
    """
    called = Called(canonical)
    called.add(stage.function)
    aims = [f"setting {name!r} is a cap or a target" for name in stage.given if _AIMS.search(name)]
    symbols = source_of(called.roots, live=called.live).symbols
    return [*aims, *(finding for symbol in symbols for finding in _of_symbol(symbol))]


def _of_symbol(symbol: str) -> tuple[str, ...]:
    name, defined = symbol.split(":")
    path = file_of(name)
    return () if path is None else _found(name, defined, path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4_096)
def _found(name: str, defined: str, path: Path, _: int) -> tuple[str, ...]:
    """Return what is not clean of a symbol; the last argument is when its file was written."""
    module = _read(name, path, _)
    methods = name.partition(".")[0] != "normloom" or name.startswith(_METHODS)
    return tuple(
        f"{name}:{defined}, line {getattr(node, 'lineno', statement.lineno)}: {found}"
        for statement in (module.statements(defined) if module else ())
        for node in ast.walk(statement)
        if (found := _drawn(node) or (_capped(node) or _aimed(node) if methods else None))
    )


@functools.lru_cache(maxsize=256)
def _read(name: str, path: Path, _: int) -> FileModule | None:
    return read_module(name, path)


def _drawn(node: ast.AST) -> str | None:
    if not isinstance(node, ast.Call):
        return None
    called = ast.unparse(node.func)
    last = called.rpartition(".")[2]
    seeded = any(one.arg in _SEEDED for one in node.keywords)
    if last in _GENERATORS:
        empty = not node.args or ast.unparse(node.args[0]) == "None"
        return f"{called}() without a seed" if empty and not seeded else None
    if last in {"sample", "shuffle"} and not _DRAWS.match(called):
        return None
    return f"{called}() draws without a seed" if _DRAWS.match(called) and not seeded else None


def _capped(node: ast.AST) -> str | None:
    """Tell of the least of something and a literal that is no whole number; bounds of a range, 0 and 1, are none."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func).rpartition(".")[2] not in {"min", "minimum", "clip"}:
        return None
    given = (*node.args, *(one.value for one in node.keywords))
    literals = (one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, float))
    found = next((value for value in literals if not value.is_integer()), None)
    return None if found is None else f"capped at {exact(found)}"


def _aimed(node: ast.AST) -> str | None:
    names = {ast.Name: "id", ast.arg: "arg", ast.keyword: "arg"}
    attribute = names.get(type(node))
    name = getattr(node, attribute) if attribute else None
    return f"{name!r} is a cap or a target" if name and _AIMS.search(name) else None
