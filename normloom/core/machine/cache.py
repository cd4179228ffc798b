"""The cache directory."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the cache directory: `NORMLOOM_CACHE`, by default ~/.cache/normloom."""
    return Path(os.environ.get("NORMLOOM_CACHE") or Path.home() / ".cache" / "normloom")
