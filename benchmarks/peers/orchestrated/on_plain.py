"""No orchestrator: all functions one after another in every run; its tables are the reference."""

from __future__ import annotations

from pathlib import Path

from orchestrated import steps
from orchestrated.settings import PROMPTS, Built, Settings

LAST = Path("selected.parquet")


def build(settings: Settings) -> Built:
    """Run the steps and write the last table."""
    drawn = steps.generate(steps.classify(steps.read(PROMPTS)))
    steps.select(steps.judge(drawn, settings.threshold)).write_parquet(LAST)
    return Built([LAST])
