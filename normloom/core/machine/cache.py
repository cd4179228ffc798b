"""Where things lie that can be made or fetched again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the directory of things that can be made again: `NORMLOOM_CACHE`, by default ~/.cache/normloom."""
    return Path(os.environ.get("NORMLOOM_CACHE") or Path.home() / ".cache" / "normloom")
