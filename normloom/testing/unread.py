"""Settings of a system that no code reads, and that therefore have no effect."""

from __future__ import annotations

import ast
import functools
import os
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

_LOOM = "normloom"
_OF_SYSTEMS = ("normloom.flows", "normloom.tasks")  # modules of the loom may read settings that every system has
_STEPS = "normloom.steps."  # reads what all steps' arguments may have, by name


def unread_settings(config: type[BaseModel]) -> list[str]:
    """Return the settings (`section.name`) of a system that no code reads.

    A setting counts as read if its name occurs as an attribute or a key in a module that declares or imports a class
    on its path (the system's settings, its section, or a base of them), or that declares a protocol with such a
    member. Settings declared by the framework may be read anywhere in it, and a class whose methods look up its fields
    by a variable name reads them all.
    """
    modules = [*_modules(_LOOM), *_modules(config.__module__.partition(".")[0])]
    found: dict[str, None] = {}
    for path, chain, name in _fields(config, (config,)):
        if not any(_may_read(module, chain, name) for module in modules):
            found[path] = None
    return list(found)


def _fields(model: type[BaseModel], chain: tuple[type[BaseModel], ...]) -> Iterator[tuple[str, Any, str]]:
    """Yield path, classes on the way and name of each setting; a section is a setting of its own."""
    for name, field in model.model_fields.items():
        yield name, chain, name
        for inner in _models_in(field.annotation):
            if inner not in chain:
                for path, further, last in _fields(inner, (*chain, inner)):
                    yield f"{name}.{path}", further, last


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models_in(inner)


@dataclass(frozen=True)
class _Module:
    """The names that a module reads as attributes and as keys, and those that it binds by import or class.

    `promised` are the members of its protocols, `open` its classes that look up fields by name.
    """

    name: str
    attributes: frozenset[str]
    keys: frozenset[str]
    bound: frozenset[str]
    promised: frozenset[str]
    open: frozenset[str]


def _may_read(module: _Module, chain: tuple[type[BaseModel], ...], name: str) -> bool:
    classes = {base for one in chain for base in one.__mro__ if issubclass(base, BaseModel) and base is not BaseModel}
    declaring = next((base for base in chain[-1].__mro__ if name in vars(base).get("__annotations__", {})), chain[-1])
    if declaring.__module__ == module.name and declaring.__name__ in module.open:
        return True
    if name in module.keys and (module.name.startswith(_STEPS) or _knows(module, classes)):
        return True
    if name not in module.attributes:
        return False
    shared = declaring.__module__.startswith(f"{_LOOM}.") and not declaring.__module__.startswith(_OF_SYSTEMS)
    own = (shared and module.name.startswith(f"{_LOOM}.")) or name in module.promised
    return own or _knows(module, classes)


def _knows(module: _Module, classes: set[type]) -> bool:
    return any(one.__module__ == module.name or one.__name__ in module.bound for one in classes)


@functools.cache
def _modules(package: str) -> tuple[_Module, ...]:
    """Return what the modules of a package read, or of one file."""
    top = sys.modules[package]
    if not hasattr(top, "__path__"):
        return (_read(package, Path(str(top.__file__))),)
    return tuple(
        _read(".".join((package, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__"), path)
        for root in map(Path, top.__path__)
        for folder, _, files in os.walk(root, followlinks=True)
        for path in (Path(folder) / file for file in files)
        if path.suffix == ".py"
    )


def _read(name: str, path: Path) -> _Module:
    attributes, keys, bound, promised, opened = (set[str]() for _ in range(5))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Attribute(attr=attribute, ctx=ast.Load()):
                attributes.add(attribute)
            case ast.Subscript(slice=ast.Constant(value=str() as key)):
                keys.add(key)
            case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str() as key), *_]):
                keys.add(key)
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str() as key), *_]):
                keys.add(key)
            case ast.ImportFrom(names=names):
                bound |= {one.name for one in names}
            case ast.ClassDef(name=own, bases=bases):
                bound.add(own)
                if any(ast.unparse(base).endswith("Protocol") for base in bases):
                    promised |= set(_members(node))
                if _looks_up(node):
                    opened.add(own)
            case _:
                pass
    return _Module(name, *map(frozenset, (attributes, keys, bound, promised, opened)))


def _members(declared: ast.ClassDef) -> Iterator[str]:
    for one in declared.body:
        if isinstance(one, ast.FunctionDef):
            yield one.name
        elif isinstance(one, ast.AnnAssign):
            yield ast.unparse(one.target)


def _looks_up(declared: ast.ClassDef) -> bool:
    """Return whether a class has `getattr(self, name)` with a name that is no literal."""
    for node in ast.walk(declared):
        match node:
            case ast.Call(func=ast.Name(id="getattr"), args=[ast.Name(id="self"), ast.Name(), *_]):
                return True
            case _:
                pass
    return False
