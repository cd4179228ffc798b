"""Prompt templates: text files in sections, filled with `$name` placeholders."""

from __future__ import annotations

import difflib
import re
import string
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from normloom.core.errors import ConfigError

FOLDER = Path(__file__).parent / "templates"

_folder: ContextVar[Path] = ContextVar("folder of templates", default=FOLDER)

_HEADING = re.compile(r"^\[([a-z_ ]+)\]$", re.MULTILINE)


class Template(BaseModel):
    """The sections of one template by name. Its text is part of the key of every stage that uses it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sections: Mapping[str, str]

    def render(self, section: str, **values: str) -> str:
        """Return a section with its placeholders filled; raises ConfigError for one that is missing."""
        if section not in self.sections:
            raise ConfigError(f"template {self.name!r} has no section [{section}]; it has {sorted(self.sections)}")
        try:
            return string.Template(self.sections[section]).substitute(values)
        except KeyError as error:
            known = ", ".join(f"${name}" for name in sorted(values)) or "none"
            raise ConfigError(
                f"template {self.name!r}, section [{section}]: unknown placeholder ${error.args[0]}; available: {known}"
            ) from None
        except ValueError:
            raise ConfigError(
                f"template {self.name!r}, section [{section}]: a $ without a name; write $$ for a dollar sign"
            ) from None


def load_template(name: str, folder: Path = FOLDER, *, needs: Collection[str] = ()) -> Template:
    """Read `<folder>/<name>.txt`: lines `[section]`, each followed by its text; `needs` must be there."""
    path = folder / f"{name}.txt"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = sorted(file.stem for file in folder.glob("*.txt"))
        raise ConfigError(f"unknown template {path}; available in {folder}: {', '.join(known) or 'none'}") from None
    except OSError as error:
        raise ConfigError(f"template {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        raise ConfigError(f"template {path} is not UTF-8 ({where}): save it as UTF-8") from error
    before, *pieces = _HEADING.split(text)
    if before.strip() or not pieces:
        raise ConfigError(f"template {path}: expected a line such as [instruction] before any text")
    sections = {heading: body.strip() for heading, body in zip(pieces[::2], pieces[1::2], strict=True)}
    if len(sections) < len(pieces) // 2:
        twice = next(heading for heading in sections if pieces[::2].count(heading) > 1)
        raise ConfigError(f"template {path}: section [{twice}] occurs twice; rename or remove one of the two")
    if missing := [section for section in needs if section not in sections]:
        raise ConfigError(f"template {path}: it has no section [{missing[0]}]; its sections are {sorted(sections)}")
    return Template(name=name, sections=sections)


@contextmanager
def templates_of(folder: Path) -> Iterator[None]:
    """Read the templates that arguments name from a folder, while they are validated.

    A template that the folder lacks is the one that comes with Normloom. Raises ConfigError for a file of the folder
    that no template is called as.
    """
    known = {path.stem for path in FOLDER.glob("*.txt")}
    for path in sorted(folder.glob("*.txt")):
        if path.stem not in known:
            close = difflib.get_close_matches(path.stem, known, n=1)
            hint = f"did you mean {close[0]}.txt?" if close else f"templates are {', '.join(sorted(known))}"
            raise ConfigError(f"unknown template {path}; {hint}")
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def template_named(name: str) -> Any:
    """Return the field of a template that is called as this by default."""
    return Field(name, description="name of the template")


def sections(needs: tuple[str, ...]) -> BeforeValidator:
    """Return the annotation of a `Template` field: a name loads the template of that name, which must have these."""

    def loaded(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        folder = _folder.get()
        if not (folder / f"{value}.txt").exists() and (FOLDER / f"{value}.txt").exists():
            folder = FOLDER
        return load_template(value, folder, needs=needs)

    return BeforeValidator(loaded)
