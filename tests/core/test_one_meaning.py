"""Words that once named several classes name one."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("normloom", "flows", "tasks", "schemas")
LINKS = [ROOT / "normloom" / name for name in ("flows", "tasks", "schemas", "deployments")]
ONCE = {"Selection", "Plan", "Packed", "Row", "Slice", "Change", "Failures", "Pairs", "Reach", "Trained", "Training"}
ONCE |= {"Reading", "Limits", "Encoding", "Labelling", "Place", "Places"}


def modules() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return [path for path in found if not any(path.is_relative_to(link) for link in LINKS)]


def test_these_words_name_one_class_each() -> None:
    names = Counter(
        statement.name
        for path in modules()
        for statement in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.ClassDef)
    )
    assert len(names) > 300
    assert {name: names[name] for name in ONCE if names[name] > 1} == {}
