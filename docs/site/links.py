"""Links to files outside of docs/ are names in the site: the repository has them."""

from __future__ import annotations

import re
from typing import Any

_FOLDERS = "benchmarks|constraints|deployments|docker-compose|examples|flows|normloom|schemas|tasks|tests"
OUTSIDE = re.compile(rf"\[([^\]]+)\]\((?:\.\./)+((?:{_FOLDERS})[^)]*)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace these links by their text and the path."""
    return OUTSIDE.sub(lambda link: link[1] if link[1].strip("`") in link[2] else f"{link[1]} (`{link[2]}`)", markdown)
