"""What of a stage's function decides its result: the source it is made of and the values that it holds."""

from __future__ import annotations

import ast
import functools
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from normloom.core.errors import UsageError
from normloom.planning.code.source import defines
from normloom.planning.code.source_cells import LiveModule, first_line, statement_at
from normloom.planning.code.source_modules import defined, file_of
from normloom.planning.code.source_text import WHOLE_MODULE, Symbol

_LAMBDA = "<lambda>"


@dataclass
class Called:
    """The symbols that a function is made of, the values it holds by name, and namespaces without a file."""

    canonical: Callable[[Any], Any]
    roots: list[Symbol] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    live: dict[str, LiveModule] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)

    def add(self, function: Any, *, within: str = "") -> None:
        """Take in a function, a partial, a method or a decorated function; `within` leads to it from the stage's own.

        Raises UsageError, naming the variable, for a value that it holds and that cannot enter a key, and for a
        function without source.
        """
        if id(function) in self._seen:
            return
        self._seen.add(id(function))
        if isinstance(function, functools.partial):
            self.add(function.func, within=within)
            for position, value in enumerate(function.args):
                self._hold(f"{within}argument {position}", value)
            for name, value in function.keywords.items():
                self._hold(f"{within}{name}", value)
        elif isinstance(function, types.MethodType):
            self.add(function.__func__, within=within)
            self._hold(f"{within}self", function.__self__)
        elif isinstance(function, types.FunctionType):
            self._add_function(function, within)
        elif isinstance(function, type):
            self.add_type(function)
        elif callable(inner := getattr(function, "__wrapped__", None)):
            self.add_type(type(function))
            self.add(inner, within=within)
        else:
            raise UsageError(
                f"{function!r} cannot be a stage's function: its source cannot be found; use a function of a module, a "
                "script or a notebook"
            )

    def add_type(self, kind: type) -> None:
        """Take in a class; those of installed packages are not followed."""
        module, name = kind.__module__, kind.__qualname__.partition(".")[0]
        self.roots.append((module, name))
        if not defines(module, name) and (module == "__main__" or module not in sys.stdlib_module_names):
            self._namespace(module, vars(sys.modules[module]))

    def _add_function(self, function: types.FunctionType, within: str) -> None:
        code, qualified = function.__code__, function.__qualname__
        symbol = self._symbol(function)
        self.roots.append(symbol)
        if "<" in qualified:
            self.values[f"{within}function"] = _position(function)
        elif "." in qualified:
            self.values[f"{within}function"] = qualified
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            self._hold(f"{within}{name}", cell.cell_contents)
        if "<locals>" in qualified:
            given = code.co_varnames[: code.co_argcount]
            values = function.__defaults__ or ()
            defaults = dict(zip(given[len(given) - len(values) :], values, strict=True))
            for name, value in {**defaults, **(function.__kwdefaults__ or {})}.items():
                self._hold(f"{within}{name}", value)

    def _symbol(self, function: types.FunctionType) -> Symbol:
        """Return the symbol of its module that a function is, or is part of; raises UsageError if there is none."""
        module, name = function.__module__, function.__qualname__.partition(".")[0]
        path = file_of(module)
        in_file = path is not None and (module != "__main__" or Path(function.__code__.co_filename) == path)
        names = [name] if name != _LAMBDA else defined(statement_at(function))
        for one in names:
            if in_file and defines(module, one):
                return module, one
        return module, self._namespace(module, function.__globals__).hold(name, function)

    def _namespace(self, module: str, names: Mapping[str, Any]) -> LiveModule:
        return self.live.setdefault(module, LiveModule(module, names, self.canonical))

    def _hold(self, name: str, value: Any) -> None:
        """Take in a value that a function holds."""
        if isinstance(value, types.ModuleType):
            self.roots.append((value.__name__, WHOLE_MODULE))
        elif isinstance(value, types.FunctionType | types.MethodType | functools.partial | type):
            self.add(value, within=f"{name}.")
        else:
            try:
                self.values[name] = self.canonical(value)
            except (TypeError, ValueError):
                raise UsageError(
                    f"a stage's function may not hold {name!r}, a {type(value).__name__}: it cannot enter the stage's "
                    "key; make it an argument or an input of the stage"
                ) from None


def _position(function: types.FunctionType) -> int:
    """Return which of the functions that its module's statement contains a nested function is."""
    statement = statement_at(function)
    inner = [
        node for node in ast.walk(statement) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    ]
    line = function.__code__.co_firstlineno
    here = [
        position for position, node in enumerate(inner) if first_line(node) == line and _name(node) == function.__name__
    ]
    if len(here) != 1:
        raise UsageError(
            f"{len(here)} functions named {function.__qualname__!r} are on line {line} of "
            f"{function.__code__.co_filename}: write the stage's function on a line of its own"
        )
    return here[0]


def _name(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> str:
    return _LAMBDA if isinstance(node, ast.Lambda) else node.name
