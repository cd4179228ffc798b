"""Hamilton: a function per step, with its cache; chunks by `Parallelizable` and `Collect`."""

from __future__ import annotations

from pathlib import Path

from hamilton import driver

from orchestrated import hamilton_steps
from orchestrated.settings import PROMPTS, Built, Settings

LAST = Path("selected.parquet")


def build(settings: Settings) -> Built:
    """Execute the graph and write its last node."""
    graph = (
        driver.Builder()
        .with_modules(hamilton_steps)
        .enable_dynamic_execution(allow_experimental_mode=True)
        .with_cache(path="cache", recompute=["prompts"])
        .build()
    )
    inputs = {"path": str(PROMPTS), "threshold": settings.threshold, "chunk": settings.chunk}
    graph.execute(["selected"], inputs=inputs)["selected"].write_parquet(LAST)
    return Built([LAST])
