"""Functions and values that a stage still holds although their module was edited and reloaded.

`from helper import mark` binds the function. If `helper` is edited and reloaded, the importing module still calls the
old one, while the stage's key would have the source of the new one. So what the stage's functions hold by name is
followed, object by object, and compared with what the modules have now.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from normloom.planning.canonical import canonical
from normloom.planning.code.source_modules import Import, changed_at, file_of, parsing, read_module

_PLAIN = (str, bytes, int, float, bool, type(None))
_MOST_ITEMS = 100  # of a list or dict in which functions are looked for


class Outdated(NamedTuple):
    """What is not as its module has it now, by module and name, and the module that holds it."""

    module: str
    name: str
    holder: str


def outdated(
    functions: Iterable[Callable[..., Any]], modules: frozenset[str], *, reloaded: frozenset[str]
) -> Outdated | None:
    """Return the first thing that some functions hold, directly or not, and that one of the modules no longer has.

    Functions are compared by their code; plain values, which bear no name of their module, only if they were imported
    from a module that was `reloaded` after an edit.
    """
    pending: list[tuple[Any, str]] = [(one, getattr(one, "__module__", "")) for one in functions]
    seen: dict[int, Any] = {}  # the values, too: the id of one that is gone may be another's
    while pending and modules:
        value, holder = pending.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, types.FunctionType):
            own = value.__module__ in modules
            if own and _is_outdated(value, reloaded):
                return Outdated(value.__module__, value.__qualname__, holder)
            if own and reloaded and (found := _outdated_value(value, reloaded)):
                return found
            pending += ((one, holder) for one in _enclosed(value))
            pending += ((one, value.__module__) for one in (_named(value, modules) if own else ()))
        else:
            pending += ((one, holder) for one in _inside(value, modules))
    return None


def _named(function: types.FunctionType, modules: frozenset[str]) -> Iterator[Any]:
    """Yield what the names in a function stand for."""
    names = _names(function.__code__)
    for name in names:
        value = function.__globals__.get(name)
        if not isinstance(value, types.ModuleType):
            yield value
        elif value.__name__ in modules:
            yield from (vars(value).get(attribute) for attribute in names)


def _enclosed(function: types.FunctionType) -> Iterator[Any]:
    """Yield the function that a function decorates, and the variables of its closure."""
    yield vars(function).get("__wrapped__")
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # not yet assigned
            yield cell.cell_contents


def _inside(value: Any, modules: frozenset[str]) -> Iterable[Any]:
    """Return what may be a function in a class, a method, a decorated function, a partial or a small collection."""
    if isinstance(value, type):
        return [*vars(value).values(), *value.__bases__] if value.__module__ in modules else ()
    if isinstance(value, functools.partial):
        return (value.func, *value.args, *value.keywords.values())
    if isinstance(value, property):
        return (value.fget, value.fset, value.fdel)
    if isinstance(value, functools.cached_property):
        return (value.func,)
    if isinstance(value, types.MethodType | staticmethod | classmethod):
        return (value.__func__,)
    if type(value) in (list, tuple, set, frozenset, dict) and len(value) <= _MOST_ITEMS:
        return value.values() if isinstance(value, dict) else value
    return (getattr(value, "__dict__", {}).get("__wrapped__"),) if callable(value) else ()


def _is_outdated(function: types.FunctionType, reloaded: frozenset[str]) -> bool:
    """Return whether the file of a function's module has another function in its place.

    That takes the function that the module has now, or a reload: without, an import hook may have changed the code.
    """
    code, place = function.__code__, function.__code__.co_filename
    if getattr(sys.modules.get(function.__module__), "__file__", None) != place:  # a decorator's, from elsewhere
        return False
    now = list(_now(function))
    if function in now:
        return False
    same = [one for one in now if (one.__code__.co_qualname, one.__code__.co_filename) == (code.co_qualname, place)]
    if any(_is_same(code, one.__code__) for one in same):
        return all(_plain(function) != _plain(one) for one in same)
    if not same and function.__module__ not in reloaded:
        return False
    there = _codes(place, changed_at(place)).get(code.co_qualname, [])
    if any(_is_same(code, one) for one in there):
        return False
    return function.__module__ in reloaded or any(_is_same(one.__code__, two) for one in same for two in there)


def _outdated_value(function: types.FunctionType, reloaded: frozenset[str]) -> Outdated | None:
    """Return the first value that a function's module imported from a reloaded one, which has another by now."""
    holder = function.__module__
    path = file_of(holder)
    if path is None or path.suffix != ".py":
        return None
    imports = _imports(holder, path, changed_at(path))
    for name in _names(function.__code__) & imports.keys() & function.__globals__.keys():
        source, attribute = imports[name].module, imports[name].attribute
        if source in reloaded and attribute and attribute in vars(sys.modules[source]):
            held, now = function.__globals__[name], vars(sys.modules[source])[attribute]
            try:
                if held is not now and canonical(held) != canonical(now):
                    return Outdated(source, attribute, holder)
            except (TypeError, ValueError):  # no plain value
                continue
    return None


def _now(function: types.FunctionType) -> Iterator[types.FunctionType]:
    """Yield what a function's module has by its name now, and the functions that this decorates."""
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = inspect.getattr_static(found, name, None)
        if isinstance(found, staticmethod | classmethod):
            found = found.__func__
        elif isinstance(found, property):
            found = found.fget
        elif isinstance(found, functools.cached_property):
            found = found.func
    while found is not None:
        if isinstance(found, types.FunctionType):
            yield found
        found = getattr(found, "__dict__", {}).get("__wrapped__")


@lru_cache(maxsize=32)
def _imports(module: str, path: Path, changed: tuple[int, int]) -> Mapping[str, Import]:  # noqa: ARG001  # as of `_codes`
    """Return what the imports of a file bind."""
    return read_module(module, path).imports


@lru_cache(maxsize=32)
def _codes(path: str, changed: tuple[int, int]) -> dict[str, list[types.CodeType]]:  # noqa: ARG001  # of an edited file
    """Return the code of all functions of a file by their qualified name."""
    found: dict[str, list[types.CodeType]] = {}
    try:
        with parsing:
            pending = [compile(Path(path).read_bytes(), path, "exec", dont_inherit=True)]
    except (OSError, SyntaxError, ValueError):
        return found
    while pending:
        code = pending.pop()
        found.setdefault(code.co_qualname, []).append(code)
        pending += (one for one in code.co_consts if isinstance(one, types.CodeType))
    return found


def _is_same(one: types.CodeType, other: types.CodeType) -> bool:
    """Return whether two functions do the same, wherever they stand in their files."""
    return _substance(one) == _substance(other)


def _substance(code: types.CodeType) -> tuple[Any, ...]:
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    return code.co_code, tuple(map(_constant, code.co_consts)), names, counts, code.co_exceptiontable


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _substance(value)
    return type(value), sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


def _plain(function: types.FunctionType) -> list[Any]:
    """Return the defaults of a function that are plain values."""
    given = [*enumerate(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()]
    return [(name, repr(one)) for name, one in given if isinstance(one, _PLAIN)]


@lru_cache(maxsize=4096)
def _names(code: types.CodeType) -> frozenset[str]:
    """Return the names that a function looks up, also in functions inside it."""
    inner = (_names(one) for one in code.co_consts if isinstance(one, types.CodeType))
    return frozenset(code.co_names).union(*inner)
