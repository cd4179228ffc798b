"""The project source that a function reaches, symbol by symbol.

A stage's key must change when any code it runs changes, also a helper two imports away, and should
not change when unrelated code of the same module does. So source is followed by names: from a
function to the module-level functions, classes and constants of project packages that it mentions,
and from those on. Comments, docstrings and formatting do not count. Where a module is used other
than by `module.name`, all of it counts.
"""

from __future__ import annotations

import ast
import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

PROJECT_PACKAGES = frozenset({"normloom"})

WHOLE_MODULE = "*"

_parsing = threading.Lock()  # CPython 3.11's parser counts its depth in one place for all threads (gh-106905)

Symbol = tuple[str, str]  # module, module-level name (or WHOLE_MODULE)


@dataclass(frozen=True)
class _Module:
    """A parsed project module: its definitions by name and what its imports bind."""

    definitions: dict[str, list[ast.stmt]]
    imports: dict[str, tuple[str, str | None]]


def source_digests(roots: Iterable[Symbol]) -> dict[str, str]:
    """Return `module:name -> digest` of everything reached from the root symbols."""
    roots = list(roots)
    packages = PROJECT_PACKAGES | {module.partition(".")[0] for module, _ in roots}
    with _parsing:
        return _digests(roots, packages)


def _digests(roots: Sequence[Symbol], packages: frozenset[str]) -> dict[str, str]:
    pending = list(roots)
    found: dict[str, str] = {}
    while pending:
        module, name = pending.pop()
        label = f"{module}:{name}"
        if label in found:
            continue
        statements, reached = _follow(module, name, packages)
        pending.extend(reached)
        if statements:
            found[label] = hashlib.blake2b("\n".join(statements).encode(), digest_size=8).hexdigest()
    return dict(sorted(found.items()))


@cache
def _follow(module: str, name: str, packages: frozenset[str]) -> tuple[list[str], list[Symbol]]:
    """Return the normalised text of a symbol's statements and the project symbols they mention."""
    if module.partition(".")[0] not in packages or (parsed := _parse(module)) is None:
        return [], []
    if name == WHOLE_MODULE:
        return [], [(module, definition) for definition in parsed.definitions]
    if name in parsed.definitions:
        statements = parsed.definitions[name]
        mentioned = [symbol for statement in statements for symbol in _mentions(statement, module, parsed, packages)]
        return [ast.unparse(statement) for statement in statements], mentioned
    if name in parsed.imports:
        return [], [_imported(*parsed.imports[name], packages)]
    return [], []


def _imported(module: str, name: str | None, packages: frozenset[str]) -> Symbol:
    """Return the symbol that an import binds; `from package import module` binds a whole module."""
    if name is None:
        return module, WHOLE_MODULE
    if _is_module(f"{module}.{name}", packages):
        return f"{module}.{name}", WHOLE_MODULE
    return module, name


def _is_module(name: str, packages: frozenset[str]) -> bool:
    """Tell whether a dotted name is a project module; others are not looked up, that would import them."""
    return name.partition(".")[0] in packages and _file_of(name) is not None


def _mentions(statement: ast.stmt, module: str, parsed: _Module, packages: frozenset[str]) -> Iterator[Symbol]:
    """Yield the project symbols that a statement names, by themselves or as attributes of a module."""
    bound = parsed.imports | dict(_bindings(ast.walk(statement), module))
    qualified: set[int] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute) and (chain := _chain(node)) and chain[0] in bound:
            target, rest = bound[chain[0]], chain[1:]
            inner = target[0] if target[1] is None else f"{target[0]}.{target[1]}"
            while rest and _is_module(f"{inner}.{rest[0]}", packages):
                inner, rest = f"{inner}.{rest[0]}", rest[1:]
            if rest and _is_module(inner, packages):
                qualified.add(id(_base(node)))
                yield inner, rest[0]
        elif isinstance(node, ast.Name) and id(node) not in qualified:
            if node.id in bound:
                yield _imported(*bound[node.id], packages)
            elif node.id in parsed.definitions:
                yield module, node.id


def _chain(node: ast.Attribute) -> list[str]:
    """Return `['a', 'b', 'c']` for `a.b.c`, nothing where the base is no plain name."""
    names: list[str] = []
    inner: ast.expr = node
    while isinstance(inner, ast.Attribute):
        names.append(inner.attr)
        inner = inner.value
    return [inner.id, *reversed(names)] if isinstance(inner, ast.Name) else []


def _base(node: ast.expr) -> ast.expr:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node


def _bindings(nodes: Iterable[ast.AST], module: str) -> Iterator[tuple[str, tuple[str, str | None]]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    yield alias.asname, (alias.name, None)
                else:
                    top = alias.name.partition(".")[0]
                    yield top, (top, None)
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(node, module)
            for alias in node.names:
                yield alias.asname or alias.name, (origin, alias.name)


def _absolute(node: ast.ImportFrom, module: str) -> str:
    if not node.level:
        return node.module or ""
    path = _file_of(module)
    package = module.split(".") if path and path.name == "__init__.py" else module.split(".")[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


@cache
def _file_of(module: str) -> Path | None:
    """Return the source file of a module, None where there is no such module.

    Nothing is imported for it: `find_spec` of a dotted name would import the packages and modules above it.
    """
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    for name in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{name}", spec.submodule_search_locations)
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


@cache
def _parse(module: str) -> _Module | None:
    path = _file_of(module)
    if path is None:
        return None
    definitions: dict[str, list[ast.stmt]] = {}
    imports: dict[str, tuple[str, str | None]] = {}
    tree = _without_docstrings(ast.parse(path.read_bytes(), filename=str(path)))
    for statement in _flattened(tree.body):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            imports.update(_bindings([statement], module))
        for name in _defined(statement):
            definitions.setdefault(name, []).append(statement)
    return _Module(definitions, imports)


def _flattened(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield module-level statements, those inside `if` and `try` among them."""
    for statement in body:
        if isinstance(statement, ast.If):
            yield from _flattened([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Try):
            handlers = [inner for handler in statement.handlers for inner in handler.body]
            yield from _flattened([*statement.body, *handlers, *statement.orelse, *statement.finalbody])
        else:
            yield statement


def _defined(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    return []


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return tree
