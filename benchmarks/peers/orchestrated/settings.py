"""The settings of a build, read from the current folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

PROMPTS = Path("prompts.parquet")
SETTINGS = Path("settings.json")


@dataclass(frozen=True)
class Settings:
    """The least score of a candidate that is kept, and how many prompts a chunk has."""

    threshold: float
    chunk: int

    @classmethod
    def read(cls) -> Settings:
        """Return the settings of the folder."""
        return cls(**json.loads(SETTINGS.read_text()))


@dataclass(frozen=True)
class Built:
    """The files of the last table, in order, and how many rows are recorded as quarantined, with the reason."""

    files: list[Path]
    aside: int = 0
