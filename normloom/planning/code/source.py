"""The source that a stage's function reaches, symbol by symbol, through every package that is not installed.

A stage's key must change when any code it runs changes, also a helper two imports away, and should not change when
unrelated code of the same module does. So source is followed by names: from a function to the module-level functions,
classes and constants that it mentions, and from those on. If a module is used other than by `module.name`, all of it
counts. Packages in site-packages and the standard library are not followed, but normloom and the function's own
package always are.

The digest holds content and no place: what a name refers to stands in the text as the number of the symbol, in the
order in which symbols are reached. So moving or renaming a module, another way to import, formatting, comments and
docstrings and descriptions of settings change nothing.

Not followed is what only running the code could tell: entries that other modules add to a registry when they are
imported, modules imported by a computed name, files that are read.
"""

from __future__ import annotations

import hashlib
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from normloom.planning.code.source_answers import Answers
from normloom.planning.code.source_cells import LiveModule
from normloom.planning.code.source_modules import (
    FileModule,
    Module,
    changed_at,
    file_of,
    followed,
    is_installed,
    parsing,
    read_module,
)
from normloom.planning.code.source_text import PROJECT_PACKAGES, WHOLE_MODULE, Symbol, normal_text, target_of

_EFFECTS = "(module)"
_KEPT = 8  # of what has been followed
_REFERENCE = re.compile("⟦(\\d+)⟧")


@dataclass(frozen=True)
class ReachedSource:
    """The digest of all source that is reached, the digest of each symbol by `module:name`, and packages that are
    mentioned and not followed."""

    digest: str
    symbols: Mapping[str, str]
    packages: frozenset[str] = frozenset()

    def as_json(self) -> list[Any]:
        """Return it as JSON types."""
        return [self.digest, dict(self.symbols), sorted(self.packages)]

    @classmethod
    def from_json(cls, found: list[Any]) -> ReachedSource:
        """Return what `as_json` was made of."""
        digest, symbols, packages = found
        return cls(digest, symbols, frozenset(packages))


def source_of(roots: Iterable[Symbol], *, live: Mapping[str, LiveModule] | None = None) -> ReachedSource:
    """Return the source reached from the root symbols; `live` are the namespaces of modules that have no file.

    Raises UsageError as `LiveModule.statements` does.
    """
    roots = list(roots)
    packages = PROJECT_PACKAGES | {module.partition(".")[0] for module, _ in roots}
    with parsing:
        files = _following(packages)
        if live:
            return _Following(packages, dict(live), files).source(roots)
        found = files.answers.get(["source", *roots], lambda: files.source(roots).as_json())
        return ReachedSource.from_json(found)


def defines(module: str, name: str) -> bool:
    """Return whether the file of a module defines a name."""
    with parsing:
        following = _following(PROJECT_PACKAGES | {module.partition(".")[0]})
        return bool(following.answers.get(["defines", module, name], lambda: following.defines(module, name)))


@dataclass(frozen=True)
class _Text:
    """The normal text of a symbol's statements, ⟦i⟧ for what it refers to, and those symbols."""

    template: str
    references: tuple[Symbol, ...]
    packages: frozenset[str] = frozenset()

    def rendered(self, names: Sequence[str]) -> str:
        return _REFERENCE.sub(lambda found: f"⟦{names[int(found[1])]}⟧", self.template)


@dataclass(eq=False)
class _Following:
    """Follows symbols; `packages` are followed wherever they are.

    Of `live` modules, which have no file, only these are followed here and all others by `files`; modules of Normloom
    are followed by `project`, once for all that use them.
    """

    packages: frozenset[str]
    live: Mapping[str, LiveModule] = field(default_factory=dict)
    files: _Following | None = None
    project: _Following | None = None
    answers: Answers = field(default_factory=Answers)
    _modules: dict[str, FileModule | None] = field(default_factory=dict)
    _found: dict[Symbol, Symbol | None] = field(default_factory=dict)
    _texts: dict[Symbol, _Text] = field(default_factory=dict)
    _reads: dict[str, tuple[int, int] | None] = field(default_factory=dict)  # of each file, as of `FileModule.read`

    @property
    def is_current(self) -> bool:
        """Whether all files are as they were when they were read."""
        reads = {**self.answers.reads, **self._reads}
        return all(read is not None and changed_at(path) == read for path, read in reads.items())

    def source(self, roots: Sequence[Symbol]) -> ReachedSource:
        found = [number for root in roots if (number := self.find(root))]
        numbers: dict[Symbol, int] = {}
        pending = list(reversed(found))
        while pending:
            symbol = pending.pop()
            if symbol not in numbers:
                numbers[symbol] = len(numbers)
                pending.extend(reversed(self.text(symbol).references))
        whole = [",".join(str(numbers[symbol]) for symbol in found)]
        symbols = {}
        for symbol in numbers:
            text = self.text(symbol)
            reached = [str(numbers[reference]) for reference in text.references]
            whole.append(f"{text.rendered(reached)}\x1e{','.join(reached)}")
            if symbol[1] != WHOLE_MODULE:
                own = text.rendered([name for _, name in text.references])
                symbols[":".join(symbol)] = _digest(own, size=8)
        packages = frozenset().union(*(self.text(symbol).packages for symbol in numbers))
        return ReachedSource(_digest("\x1f".join(whole), size=10), dict(sorted(symbols.items())), packages)

    def module(self, name: str) -> Module | None:
        """Return a module that is followed, None for one that is not or that has no source."""
        if name in self.live:
            return self.live[name]
        if name not in self._modules:
            path = followed(name, self.packages)
            module = self._modules[name] = read_module(name, path) if path else None
            self.answers.read(name, module)
            if module:
                known = self.answers.reads.get(str(path), module.read)
                self._reads[str(path)] = module.read if known == module.read else None  # changed since
        return self._modules[name]

    def _elsewhere(self, name: str) -> _Following | None:
        """Return the follower that has a module in place of this one, None if this one has it."""
        if name in self.live:
            return None
        return self.files or (self.project if name.partition(".")[0] in PROJECT_PACKAGES else None)

    def defines(self, module: str, name: str) -> bool:
        parsed = (self._elsewhere(module) or self).module(module)
        return parsed is not None and bool(parsed.statements(name))

    def find(self, symbol: Symbol) -> Symbol | None:
        """Return where a symbol is defined, past the imports that hand it on; None if that is not followed."""
        if files := self._elsewhere(symbol[0]):
            return files.find(symbol)
        if symbol not in self._found:
            self._found[symbol] = None  # so that modules that import each other come to an end
            self._found[symbol] = self._find(*symbol)
        return self._found[symbol]

    def _find(self, name: str, defined: str) -> Symbol | None:
        module = self.module(name)
        if module is None:
            return None
        if defined in (WHOLE_MODULE, _EFFECTS) or module.statements(defined):
            return name, defined
        if (bound := module.imported(defined)) and (found := self.find(target_of(bound))):
            return found
        if found := self.starred(module, defined):
            return found
        if module.is_package and self.module(f"{name}.{defined}"):
            return f"{name}.{defined}", WHOLE_MODULE
        return (name, "__getattr__") if module.statements("__getattr__") else None

    def starred(self, module: Module, name: str) -> Symbol | None:
        """Return the symbol that a name is by `from ... import *`."""
        return next((found for star in module.stars if (found := self.find((star, name)))), None)

    def text(self, symbol: Symbol) -> _Text:
        if files := self._elsewhere(symbol[0]):
            return files.text(symbol)
        if symbol not in self._texts:
            self._texts[symbol] = self._text(*symbol)
        return self._texts[symbol]

    def _text(self, name: str, defined: str) -> _Text:
        module = self.module(name)
        assert module
        if defined == WHOLE_MODULE:
            found = [number for one in module.names() if (number := self.find((name, one)))]
            references = list(dict.fromkeys(found))
            template = "\n".join(f"⟦{number}⟧" for number in range(len(references)))
            packages: set[str] = set()
        else:
            statements = module.effects if defined == _EFFECTS else module.statements(defined)
            template, references, packages = normal_text(statements, module, self)
        if defined != _EFFECTS and module.effects:
            references.append((name, _EFFECTS))
        return _Text(template, tuple(references), frozenset(packages))


_shared: dict[tuple[str, ...], _Following] = {}


class _Look(threading.local):
    """What this thread has found to be current in its look at the source; None if it looks each time."""

    found: dict[tuple[str, ...], _Following] | None = None


_look = _Look()


@contextmanager
def one_look() -> Iterator[None]:
    """See the source of one moment: inside, files that were looked at are not looked at again."""
    _look.found = {}
    try:
        yield
    finally:
        _look.found = None


def _following(packages: frozenset[str]) -> _Following:
    """Return what has been followed before, if the files and the folders they are found in are still as they were."""
    number = (*sorted(packages), "in", *sys.path)
    if _look.found and number in _look.found:
        return _look.found[number]
    found, project = _shared.pop(number, None), None
    if packages != PROJECT_PACKAGES:
        project = _following(PROJECT_PACKAGES)
    if found is None or not found.is_current or (found.project and found.project is not project):
        if any(_installed(package) for package in packages - PROJECT_PACKAGES):
            project = None  # Normloom may import one of them, which is not followed otherwise
        answers = Answers.kept(packages) if packages == PROJECT_PACKAGES else Answers()
        found = _Following(packages, project=project, answers=answers)
    _shared[number] = found  # at the end: the least recently used are first
    while len(_shared) > _KEPT:
        del _shared[next(iter(_shared))]
    if _look.found is not None:
        _look.found[number] = found
    return found


def _installed(package: str) -> bool:
    path = file_of(package)
    return path is not None and is_installed(package, path)


def _digest(text: str, *, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()
