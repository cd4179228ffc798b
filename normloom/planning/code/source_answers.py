"""What was found in source before, kept between processes under the content of every file that was looked at.

An answer holds as long as each module that was looked for is still found in the same file with the same content, or is
still not followed. That is verified, file by file, before a kept answer is used; so is what made the answers, this
package and Python. Kept are only those that follow no package but Normloom: of the user's own each build reads the
source.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from normloom.core.machine.cache import cache_dir
from normloom.planning.code.source_modules import FileModule, file_of, followed, read_file

_FOLDER = "source"

Read = tuple[int, int] | None  # as of `FileModule.read`


@dataclass
class Answers:
    """Answers, JSON values, by question, and the modules that they depend on: file and digest, None for one that is
    not followed."""

    path: Path | None = None  # where they are kept
    modules: dict[str, list[str] | None] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    reads: dict[str, Read] = field(default_factory=dict)  # of the files that were verified
    _is_new: bool = False

    @classmethod
    def kept(cls, packages: frozenset[str]) -> Self:
        """Return the answers of an earlier process if they are still right, else none; new ones will be kept."""
        answers = cls(_place(packages))
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            found = json.loads((answers.path or Path()).read_bytes())
            answers._take(found, packages)
        atexit.register(answers.keep)
        return answers

    def get(self, question: Sequence[Any], answer: Callable[[], Any]) -> Any:
        """Return the answer to a question, which `answer` finds if it is not known."""
        asked = json.dumps(question)
        if asked not in self.answers:
            self.answers[asked] = answer()
            self._is_new = True
        return self.answers[asked]

    def read(self, name: str, module: FileModule | None) -> None:
        """Note a module that answers depend on."""
        now = [str(module.path), module.digest] if module else None
        if self.modules.setdefault(name, now) != now:  # it has just changed: earlier answers are of what it was
            self.path = None

    def _take(self, found: dict[str, Any], packages: frozenset[str]) -> None:
        """Take in what was kept, if all its modules are as they were."""
        reads: dict[str, Read] = {}
        for name, was in found["modules"].items():
            path = followed(name, packages)
            now = None
            if path:
                reads[str(path)], digest, _ = read_file(path)
                now = [str(path), digest]
            if now != was or (path and reads[str(path)] is None):
                return
        self.modules, self.answers, self.reads = found["modules"], found["answers"], reads

    def keep(self) -> None:
        """Write them down. Two processes may each lose the other's: they are found again. A torn file cannot appear."""
        if not (self.path and self._is_new):
            return
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".source-")
            with os.fdopen(handle, "w") as file:
                json.dump({"modules": self.modules, "answers": self.answers}, file)
            Path(name).replace(self.path)


def _place(packages: frozenset[str]) -> Path:
    """Return where answers are kept: for each place of the packages, version of Python and of the code that answers."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    places = [str(file_of(package)) for package in sorted(packages)]
    number = hashlib.sha256(json.dumps([sys.version, *places]).encode() + code).hexdigest()
    return cache_dir() / _FOLDER / f"{number[:20]}.json"
