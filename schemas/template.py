"""Prompt templates: text files in sections, filled with `$name` placeholders."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from normloom.errors import ConfigError

FOLDER = Path(__file__).parent / "templates"

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
        except (KeyError, ValueError) as error:
            known = ", ".join(f"${name}" for name in sorted(values))
            raise ConfigError(
                f"template {self.name!r}, section [{section}]: placeholder {error} is not among {known}"
            ) from None


def load_template(name: str, folder: Path = FOLDER) -> Template:
    """Read `<folder>/<name>.txt`: lines `[section]`, each followed by its text."""
    path = folder / f"{name}.txt"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = sorted(file.stem for file in folder.glob("*.txt"))
        raise ConfigError(f"there is no template {path}; {folder} has {known}") from None
    pieces = _HEADING.split(text)
    if pieces[0].strip() or len(pieces) == 1:
        raise ConfigError(f"{path}: text stands before the first [section] heading")
    sections = {heading: body.strip() for heading, body in zip(pieces[1::2], pieces[2::2], strict=True)}
    return Template(name=name, sections=sections)
