"""A folder as users have it: characters that mean something to patterns, URLs and markup, and modules of the user's."""

from __future__ import annotations

from pathlib import Path

NAME = "data [v1] #5%20 *x/date=2026-11-27"


def users_folder(place: Path) -> Path:
    """Make a folder within a place, with modules and packages that must never be imported, and return it."""
    folder = place / NAME
    for name in ("flows", "schemas", "deployments"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise RuntimeError('a module of the user was imported')\n")
    (folder / "tasks").mkdir()
    for name in ("tasks/ingest.py", "tasks.py", "keys.py", "store.py"):
        (folder / name).write_text("raise RuntimeError('a module of the user was imported')\n")
    return folder
