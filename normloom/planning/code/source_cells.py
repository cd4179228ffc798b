"""Namespaces without a file, such as a notebook's: the source of what is defined there, from `linecache`."""

from __future__ import annotations

import ast
import inspect
import json
import linecache
import re
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from normloom.core.errors import UsageError
from normloom.planning.code.source_modules import Import, is_installed, parsing


class LiveModule:
    """A namespace without a file: functions and classes by the text of their cells, values as they are."""

    stars: tuple[str, ...] = ()
    effects: tuple[ast.stmt, ...] = ()
    is_package = False

    def __init__(self, name: str, namespace: Mapping[str, Any], canonical: Callable[[Any], Any]) -> None:
        self.name = name
        self._namespace = namespace
        self._canonical = canonical
        self._functions: dict[str, types.FunctionType] = {}

    def hold(self, name: str, function: types.FunctionType) -> str:
        """Take in a function, and return the name by which it is defined here: its own, if it still has that."""
        if _unwrapped(self._namespace.get(name)) is not function:
            name = f"{name} on line {function.__code__.co_firstlineno}"
        self._functions[name] = function
        return name

    def statements(self, name: str) -> tuple[ast.stmt, ...]:
        """Return the statement that defines a function or class, or one that gives a name its present value.

        Of what is imported they are only what it holds besides its source, such as the variables of a closure.
        Raises UsageError for a value that cannot enter a key, and for a function or class without source.
        """
        if name in self._functions:
            return (statement_at(self._functions[name]),)
        if name not in self._namespace:
            return ()
        value = _unwrapped(self._namespace[name])
        held = tuple(self._assigned(inner, one) for inner, one in _held(value))
        if self.imported(name):
            return held
        if isinstance(value, types.FunctionType):
            return (statement_at(value), *held)
        if isinstance(value, type):
            return _class_statement(value, self._namespace)
        return (self._assigned(name, value),)

    def imported(self, name: str) -> Import | None:
        """Return where a module, or a function or class of another module, comes from."""
        value = _unwrapped(self._namespace.get(name))
        if isinstance(value, types.ModuleType):
            return Import(value.__name__)
        if isinstance(value, types.GenericAlias):  # has the names of the class that it is made of
            return None
        module, qualified = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(qualified, str) or module == self.name:
            return None
        return Import(module, qualified.partition(".")[0])

    def names(self) -> list[str]:
        """Raise AssertionError: a namespace is never used as a whole."""
        raise AssertionError(self.name)

    def _assigned(self, name: str, value: Any) -> ast.stmt:
        return ast.parse(f"{name} = {self._text(name, value)}").body[0]

    def _text(self, name: str, value: Any) -> str:
        if isinstance(value, re.Pattern):
            return repr((value.pattern, value.flags))
        if type(value).__module__ in ("typing", "types"):
            return repr(str(value))
        try:
            return repr(json.dumps(self._canonical(value), sort_keys=True))
        except (TypeError, ValueError):
            raise UsageError(
                f"the stage's code reads the variable {name!r}, a {type(value).__name__}, which cannot enter its key: "
                "make it an argument or an input of the stage, or make it inside the function"
            ) from None


def statement_at(function: types.FunctionType) -> ast.stmt:
    """Return the statement at the top level of a function's file or cell that the function is part of.

    Raises UsageError if the text is not to be had.
    """
    code = function.__code__
    text = "".join(linecache.getlines(code.co_filename, function.__globals__))
    for statement in _parsed(text):
        if first_line(statement) <= code.co_firstlineno <= (statement.end_lineno or 0):
            return statement
    raise _unseen(f"function {function.__qualname__!r} (module {function.__module__})")


def first_line(node: ast.stmt | ast.expr) -> int:
    """Return the line on which a statement begins, with its decorators."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _held(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a function holds besides its source: variables of a closure, defaults, what a method is bound to."""
    if isinstance(value, types.MethodType):
        if not isinstance(value.__self__, type):
            yield "self", value.__self__
        return
    if not isinstance(value, types.FunctionType) or is_installed(value.__module__, Path(value.__code__.co_filename)):
        return
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        if cell.cell_contents is not value:
            yield name, cell.cell_contents
    if "<locals>" in value.__qualname__:
        yield from (("default", one) for one in value.__defaults__ or ())
        yield from (value.__kwdefaults__ or {}).items()


def _class_statement(kind: type, namespace: Mapping[str, Any]) -> tuple[ast.stmt]:
    """Return the statement of the newest cell that defines a class of this name; raises UsageError if none does."""
    for text in _cells_of(kind, namespace):
        found = [one for one in _parsed(text) if isinstance(one, ast.ClassDef) and one.name == kind.__name__]
        if found:
            return (found[-1],)
    raise _unseen(f"class {kind.__qualname__!r} (module {kind.__module__})")


def _cells_of(kind: type, namespace: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of the cells that may define a class: that of its methods, else all, the newest first.

    Kernels name a cell by its text, so one that is run again keeps its old place in `linecache`; `In` has each run.
    """
    cells = {name: entry[2] for name, entry in linecache.cache.items() if len(entry) > 1}
    own = [value.__code__.co_filename for value in vars(kind).values() if isinstance(value, types.FunctionType)]
    yield from ("".join(cells[name]) for name in own if name in cells)
    runs = namespace.get("In")
    yield from reversed([one for one in runs if isinstance(one, str)] if isinstance(runs, list) else [])
    yield from ("".join(lines) for name, lines in reversed(cells.items()) if not Path(name).is_file())


def _unseen(what: str) -> UsageError:
    return UsageError(
        f"the source of {what} cannot be found, so changes to it would go unnoticed: define it in a file or in "
        "a notebook cell"
    )


def _parsed(text: str) -> list[ast.stmt]:
    try:
        with parsing:
            return ast.parse(text).body
    except SyntaxError:  # a cell that is not Python
        return []


def _unwrapped(value: Any) -> Any:
    """Return the function under decorators that keep it (`functools.wraps`)."""
    if callable(value) and not isinstance(value, type) and hasattr(value, "__wrapped__"):
        return inspect.unwrap(value)
    return value
