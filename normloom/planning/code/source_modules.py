"""Modules as a stage's source is followed through them: what each defines, imports and does when it is imported."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

_INSTALLED = frozenset({"site-packages", "dist-packages"})
parsing = threading.RLock()  # CPython 3.11's parser counts its depth in one place for all threads (gh-106905)

_BINARY = "binary"
_TICK = 100_000_000  # nanoseconds in which a file may change twice and keep its time of change
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)
_CHANGING = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Delete)
_COMPOUND = (ast.If, ast.Try, ast.TryStar, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Match)


@dataclass(frozen=True)
class Import:
    """What a name is bound to by an import: a module, or an attribute of one."""

    module: str
    attribute: str | None = None


class Module(Protocol):
    """The definitions of a module and what its imports bind."""

    name: str
    stars: tuple[str, ...]  # modules whose names are all imported
    effects: tuple[ast.stmt, ...]  # statements that define nothing here and may change something elsewhere

    @property
    def is_package(self) -> bool:
        """Whether modules of their own may be in it."""
        ...

    def statements(self, name: str) -> tuple[ast.stmt, ...]:
        """Return the statements that make a name what it is, none if it is not defined here."""
        ...

    def imported(self, name: str) -> Import | None:
        """Return what an import binds to a name."""
        ...

    def names(self) -> list[str]:
        """Return all names that are defined or imported, in their order."""
        ...


@dataclass
class FileModule:
    """A module that is read from its file (a compiled one is one symbol), or a folder of modules."""

    name: str
    path: Path
    read: tuple[int, int] | None = None  # time of change and size of the file when it was read
    digest: str = ""  # of what was read; a folder has none
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, Import] = field(default_factory=dict)
    stars: tuple[str, ...] = ()
    effects: tuple[ast.stmt, ...] = ()

    def statements(self, name: str) -> tuple[ast.stmt, ...]:
        """Return the statements that define a name."""
        return tuple(self.definitions.get(_BINARY if _BINARY in self.definitions else name, ()))

    @property
    def is_package(self) -> bool:
        """Whether modules of their own may be in it."""
        return self.path.is_dir() or self.path.name == "__init__.py"

    def imported(self, name: str) -> Import | None:
        """Return what an import binds to a name."""
        return self.imports.get(name)

    def names(self) -> list[str]:
        """Return all names that are defined or imported."""
        return list(dict.fromkeys([*self.definitions, *self.imports]))


def read_module(name: str, path: Path) -> FileModule:
    """Read a module's file."""
    read, digest, text = read_file(path)
    module = FileModule(name, path, read=read, digest=digest)
    if path.is_dir():
        return module
    if path.suffix != ".py":
        module.definitions[_BINARY] = [ast.parse(f"{_BINARY} = {digest!r}").body[0]]
        return module
    tree = ast.parse(text, filename=str(path))
    others: list[tuple[ast.stmt, list[str]]] = []
    for statement in tree.body:
        if _is_main_guard(statement):
            continue
        imports = [node for node in _here(statement) if isinstance(node, ast.Import | ast.ImportFrom)]
        module.imports.update(bindings(imports, name, path))
        module.stars += tuple(star for node in imports for star in _stars(node, name, path))
        names = list(dict.fromkeys(defined(statement)))
        for one in names:
            module.definitions.setdefault(one, []).append(statement)
        if not isinstance(statement, _DEFINITIONS) and not _is_inert(statement):
            others.append((statement, names))
    for statement, names in others:
        changed = {base for base in _changed(statement) if base in module.definitions} - set(names)
        for base in sorted(changed):
            module.definitions[base].append(statement)
        if not changed and not names and name != "__main__":  # of a script these print and start things
            module.effects += (statement,)
    return module


def read_file(path: Path) -> tuple[tuple[int, int] | None, str, bytes]:
    """Return what `changed_at` says of a module's file, None if the file is too new to be told from a later one; the
    digest of its content; and the content. A folder has none."""
    now, read = time.time_ns(), changed_at(path)
    text = b"" if path.is_dir() else path.read_bytes()
    digest = "" if path.is_dir() else hashlib.sha256(text).hexdigest()
    return read if now - read[0] > _TICK else None, digest, text


def changed_at(path: str | Path) -> tuple[int, int]:
    """Return the time of change of a file and its size, zeros if it is gone."""
    try:
        status = os.stat(path)  # noqa: PTH116  # each key looks at hundreds of files: `Path.stat` takes half as long again
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def file_of(module: str) -> Path | None:
    """Return the file of a module, the folder of a package without one, None if it does not exist.

    Nothing is imported for it: `find_spec` of a dotted name would import the packages and modules above it.
    """
    if module == "__main__":
        path = getattr(sys.modules["__main__"], "__file__", None)
        return Path(path) if path and path.endswith(".py") and Path(path).is_file() else None
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for position, name in enumerate(rest):
        try:
            spec = PathFinder.find_spec(".".join([top, *rest[: position + 1]]), folders)
        except KeyError:  # it is a folder without a file of its own, in a package that is not imported
            spec = None
        if spec and spec.has_location:
            folders = list(spec.submodule_search_locations or ())
        else:
            folders = [str(inner) for folder in folders if (inner := Path(folder) / name).is_dir()]
    if spec and spec.has_location and spec.origin:
        return Path(spec.origin)
    return Path(folders[0]) if folders else None


def followed(module: str, packages: frozenset[str]) -> Path | None:
    """Return the file of a module if it is in one of the packages or not installed, else None."""
    path = file_of(module)
    own = module.partition(".")[0] in packages
    return path if path and (own or not is_installed(module, path)) else None


def is_installed(module: str, path: Path) -> bool:
    """Return whether a module belongs to the standard library or to an installed package; editable ones do not."""
    return module.partition(".")[0] in sys.stdlib_module_names or not _INSTALLED.isdisjoint(path.parts)


def bindings(nodes: Iterable[ast.AST], module: str, path: Path | None) -> dict[str, Import]:
    """Return what import statements of a module bind."""
    found: dict[str, Import] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name if alias.asname else alias.name.partition(".")[0]
                found[alias.asname or top] = Import(top)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = Import(_absolute(node, module, path), alias.name)
    found.pop("*", None)
    return found


def _stars(node: ast.AST, module: str, path: Path) -> list[str]:
    if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
        return [_absolute(node, module, path)]
    return []


def _absolute(node: ast.ImportFrom, module: str, path: Path | None) -> str:
    if not node.level:
        return node.module or ""
    if module == "__main__":
        package = (getattr(sys.modules["__main__"], "__package__", None) or "").split(".")
    else:
        package = module.split(".") if path and path.name == "__init__.py" else module.split(".")[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


def _here(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yield what a statement of a module runs when the module is imported: not the bodies of functions and classes."""
    yield statement
    if not isinstance(statement, _DEFINITIONS):
        for child in ast.iter_child_nodes(statement):
            if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
                yield from _here(child)  # type: ignore[arg-type]  # handlers and cases hold statements


def defined(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement of a module binds, but for those of imports."""
    for node in _here(statement):
        if isinstance(node, _DEFINITIONS):
            yield node.name
        elif isinstance(node, ast.stmt):
            yield from _stored(node)


def _stored(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that the expressions of one statement bind."""
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.expr | ast.withitem | ast.pattern):
            for node in ast.walk(child):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.id


def _changed(statement: ast.stmt) -> Iterator[str]:
    """Yield the names of things that a statement may change: `a[0] = 1`, `a.b = 1`, `a.update(...)`, `del a[0]`."""
    for node in _here(statement):
        called = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        for inner in ast.walk(node) if called or isinstance(node, _CHANGING) else ():
            if isinstance(inner, ast.Call) and called:
                target = inner.func
            elif isinstance(inner, ast.Subscript | ast.Attribute) and not isinstance(inner.ctx, ast.Load):
                target = inner
            else:
                continue
            while isinstance(target, ast.Subscript | ast.Attribute):
                target = target.value
                if isinstance(target, ast.Name):
                    yield target.id


def _is_main_guard(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and ast.unparse(statement.test).startswith("__name__ ==")


def _is_inert(statement: ast.stmt) -> bool:
    """Return whether a statement does nothing but import, or nothing at all."""
    inner = [node for node in _here(statement) if isinstance(node, ast.stmt) and not isinstance(node, _COMPOUND)]
    return all(
        isinstance(node, ast.Import | ast.ImportFrom | ast.Pass | ast.Global)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in inner
    )
