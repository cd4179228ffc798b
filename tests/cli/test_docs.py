"""The documentation builds as a site without a broken link, and has a section for each command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from typer.main import get_command

from normloom.cli.app import app

ROOT = Path(__file__).parents[2]
QUIET = {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
README_LINES = 150


def test_the_site_builds_and_has_every_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "reference" / "commands.html").read_text()
    for name in get_command(app).commands:  # type: ignore[attr-defined]  # a group
        assert f">normloom {name}<" in page
    assert "normloom.api.build.build" in (tmp_path / "site" / "reference" / "python.html").read_text()


def test_the_readme_is_what_a_newcomer_needs() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES
