"""The steps as functions of a Hamilton graph: a parameter's name is the function that produces it."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from hamilton.htypes import Collect, Parallelizable

from orchestrated import steps


def prompts(path: str) -> pl.DataFrame:
    """Read the prompts; looked at in every run, because the cache does not look into files."""
    return steps.read(Path(path))


def part(prompts: pl.DataFrame, chunk: int) -> Parallelizable[pl.DataFrame]:
    """Cut the prompts into chunks."""
    yield from prompts.iter_slices(chunk)


def labelled(part: pl.DataFrame) -> pl.DataFrame:
    """Label a chunk."""
    return steps.classify(part)


def drawn(labelled: pl.DataFrame) -> pl.DataFrame:
    """Draw the candidates of a chunk."""
    return steps.generate(labelled)


def judged(drawn: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """Judge the candidates of a chunk."""
    return steps.judge(drawn, threshold)


def together(judged: Collect[pl.DataFrame]) -> pl.DataFrame:
    """Put the chunks together."""
    return pl.concat(judged)


def selected(together: pl.DataFrame) -> pl.DataFrame:
    """Select from all."""
    return steps.select(together)
