"""A class name means one thing; each system and each engine has its own of a few."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("normloom", "flows", "tasks", "schemas")
LINKS = [ROOT / "normloom" / name for name in ("flows", "tasks", "schemas", "deployments")]
OF_EACH = {
    "Models",
    "SourceSettings",
    "ExpandSettings",
    "Options",
}  # of a system, of an engine


def modules() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return [path for path in found if not any(path.is_relative_to(link) for link in LINKS)]


def test_no_two_public_classes_have_one_name() -> None:
    names = Counter(
        statement.name
        for path in modules()
        for statement in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.ClassDef) and not statement.name.startswith("_")
    )
    assert len(names) > 300
    assert {name for name, count in names.items() if count > 1} - OF_EACH == set()
