"""The documentation builds as a site without a broken link, and has a page for each command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from normloom.cli.app import app

ROOT = Path(__file__).parents[2]
QUIET = {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
README_LINES = 150
PAGES = sorted(str(page.relative_to(ROOT)) for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")
ELSEWHERE = re.compile(r"<(script|link|img)\b[^>]*(src|href)=\"(https?:)?//(?!127)|class=\"mermaid\"")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def built(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site; not with --quiet, which hides the warnings that --strict counts."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=root,
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        check=False,
    )


FEW_PAGES = """
INHERIT: whole.yml
plugins: [search]
hooks: [docs/site/links.py]
nav: [index.md, trust.md]
"""


def test_a_broken_link_is_an_error(tmp_path: Path) -> None:
    """By the settings of the site, of which two pages are enough."""
    shutil.copy(ROOT / "mkdocs.yml", tmp_path / "whole.yml")
    shutil.copytree(ROOT / "docs" / "site", tmp_path / "docs" / "site")
    (tmp_path / "mkdocs.yml").write_text(FEW_PAGES)
    (tmp_path / "docs" / "index.md").write_text("[trust](trust.md)\n")
    page = tmp_path / "docs" / "trust.md"
    page.write_text("[start](index.md)\n")
    whole = built(tmp_path, tmp_path / "site")
    assert whole.returncode == 0, whole.stderr
    page.write_text("[gone](gone.md)\n")
    done = built(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    assert "gone.md" in done.stderr


def test_the_site_builds_and_has_every_command(tmp_path: Path) -> None:
    done = built(ROOT, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    assert [page.name for page in site.rglob("*.html") if ELSEWHERE.search(page.read_text(encoding="utf-8"))] == []
    pages = site / "reference" / "commands"
    index = (pages / "index.html").read_text()
    for name in get_command(app).commands:  # type: ignore[attr-defined]  # a group
        assert f"normloom {name}" in (pages / f"{name}.html").read_text()
        assert f'href="{name}.html"' in index
    assert "normloom.api.build.build" in (tmp_path / "site" / "reference" / "python.html").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_to_files_and_their_headings(page: str) -> None:
    text = FENCED.sub("", (ROOT / page).read_text(encoding="utf-8"))
    broken = []
    for target in LINK.findall(text):
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """Return what headings of a page are linked by, as GitHub and MkDocs name them."""
    headings = HEADING.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def test_the_readme_is_what_a_newcomer_needs() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES
