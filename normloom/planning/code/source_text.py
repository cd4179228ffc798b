"""The normal form of a stage's source: what statements do, not how they are written or where they are."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from normloom.planning.code.source_modules import Import, Module, bindings

PROJECT_PACKAGES = frozenset({"normloom"})
WHOLE_MODULE = "*"
_STEP = "step"

Symbol = tuple[str, str]  # module, module-level name (or WHOLE_MODULE)


class Following(Protocol):
    """Knows where symbols are defined."""

    def find(self, symbol: Symbol) -> Symbol | None:
        """Return where a symbol is defined, past the imports that hand it on; None if that is not followed."""
        ...

    def starred(self, module: Module, name: str) -> Symbol | None:
        """Return the symbol that a name is by `from ... import *`."""
        ...


def normal_text(
    statements: Iterable[ast.stmt], module: Module, following: Following
) -> tuple[str, list[Symbol], set[str]]:
    """Return the normal text of a module's statements, ⟦i⟧ for each symbol that they refer to; these symbols; and the
    packages that are mentioned and not followed."""
    normal = _Normal(following, module)
    text = "\n".join(normal.text(statement) for statement in statements)
    return text, normal.references, normal.packages


def target_of(bound: Import) -> Symbol:
    """Return the symbol that an import binds a name to."""
    return bound.module, bound.attribute or WHOLE_MODULE


class _Normal(ast.NodeTransformer):
    """Brings statements into a form that says what they do and not how it is written or where it is."""

    def __init__(self, following: Following, module: Module) -> None:
        self.references: list[Symbol] = []
        self.packages: set[str] = set()
        self._following = following
        self._module = module
        self._imports: dict[str, Import] = {}
        self._globals: frozenset[str] = frozenset()

    def text(self, statement: ast.stmt) -> str:
        """Return the text of one statement; what it refers to is added to `references`."""
        self._imports = bindings(ast.walk(statement), self._module.name, getattr(self._module, "path", None))
        text = ast.unparse(statement)
        self._globals = frozenset(_globals(symtable.symtable(text, "statement", "exec")))
        return ast.unparse(self.visit(ast.parse(text)))

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(getattr(node, "body", None), list) and not node.body:  # type: ignore[attr-defined]  # it has
            node.body = [ast.Pass()]  # type: ignore[attr-defined]  # as above
        return node

    def visit_Import(self, node: ast.Import) -> None:
        """What it binds is resolved where it is used."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """What it binds is resolved where it is used."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        chain = _chain(node)
        return (self._resolved(chain) if chain else None) or self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self._resolved([node.id]) or node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list = [decorator for decorator in node.decorator_list if not self._declares(decorator)]
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "Field":  # what a setting means decides nothing
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "description"]
        return self.generic_visit(node)

    def _declares(self, decorator: ast.expr) -> bool:
        """Return whether a decorator is normloom's `step`: what it says enters the key as fields."""
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        chain = _chain(called)
        bound = self._bound(chain[0]) if chain else None
        return bound is not None and bound.module.partition(".")[0] in PROJECT_PACKAGES and chain[-1] == _STEP

    def _bound(self, name: str) -> Import | None:
        if name in self._imports:
            return self._imports[name]
        return self._module.imported(name) if name in self._globals else None

    def _resolved(self, chain: list[str]) -> ast.expr | None:
        """Return what stands for `a.b.c`: a reference to a symbol, or the full name of what is not followed."""
        name, *rest = chain
        own, bound = self._own(name), self._bound(name)
        if own and bound and name not in self._imports:  # it was imported and then defined: both count
            self._mention(self._following.find(target_of(bound)))
        if own and name not in self._imports:
            return _attributes(self._reference(own), rest)
        if bound is None:
            return None
        symbol = self._following.find(target_of(bound))
        while symbol and symbol[1] == WHOLE_MODULE and rest:
            inner = self._following.find((symbol[0], rest[0]))
            if inner is None:
                break
            symbol, rest = inner, rest[1:]
        if symbol:
            return _attributes(self._reference(symbol), rest)
        self.packages.add(bound.module.partition(".")[0])
        full = [*bound.module.split("."), *([bound.attribute] if bound.attribute else [])]
        return _attributes(ast.Name(id=full[0]), [*full[1:], *rest])

    def _own(self, name: str) -> Symbol | None:
        """Return the symbol that a plain name is in its module."""
        if name not in self._globals:
            return None
        starred = self._following.starred(self._module, name)
        if self._module.statements(name):
            self._mention(starred)
            return self._module.name, name
        return starred

    def _mention(self, symbol: Symbol | None) -> None:
        if symbol and symbol not in self.references:
            self.references.append(symbol)

    def _reference(self, symbol: Symbol) -> ast.expr:
        self._mention(symbol)
        return ast.Name(id=f"⟦{self.references.index(symbol)}⟧")


def _globals(table: symtable.SymbolTable) -> Iterator[str]:
    """Yield the names that some scope of a statement takes from its module."""
    for symbol in table.get_symbols():
        if table.get_type() == "module" or symbol.is_global():
            yield symbol.get_name()
    for inner in table.get_children():
        yield from _globals(inner)


def _attributes(base: ast.expr, names: Sequence[str]) -> ast.expr:
    for name in names:
        base = ast.Attribute(value=base, attr=name)
    return base


def _chain(node: ast.expr) -> list[str]:
    """Return `['a', 'b', 'c']` for `a.b.c`, nothing if the base is no plain name."""
    names: list[str] = []
    inner: ast.expr = node
    while isinstance(inner, ast.Attribute):
        names.append(inner.attr)
        inner = inner.value
    return [inner.id, *reversed(names)] if isinstance(inner, ast.Name) else []
