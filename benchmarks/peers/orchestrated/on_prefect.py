"""Prefect: a task per step and chunk; results are persisted and cached by inputs and the task's source."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl
from prefect import flow, task
from prefect.cache_policies import INPUTS, TASK_SOURCE
from prefect.task_runners import ThreadPoolTaskRunner

from orchestrated import steps
from orchestrated.settings import PROMPTS, Built, Settings

LAST = Path("selected.parquet")

kept = task(cache_policy=INPUTS + TASK_SOURCE, persist_result=True)


@kept
def read(path: str, digest: str) -> pl.DataFrame:  # noqa: ARG001  # it is part of the cache's key
    """Read the prompts; the digest stands for their file in the cache's key."""
    return steps.read(Path(path))


@kept
def classify(rows: pl.DataFrame) -> pl.DataFrame:
    """Label a chunk."""
    return steps.classify(rows)


@kept
def generate(rows: pl.DataFrame) -> pl.DataFrame:
    """Draw the candidates of a chunk."""
    return steps.generate(rows)


@kept
def judge(rows: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """Judge the candidates of a chunk."""
    return steps.judge(rows, threshold)


@kept
def select(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """Select from all chunks."""
    return steps.select(pl.concat(parts))


@flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
def weave(threshold: float, chunk: int) -> pl.DataFrame:
    """Run the steps on each chunk and select from all."""
    prompts = read(str(PROMPTS), hashlib.sha256(PROMPTS.read_bytes()).hexdigest())
    chunks = list(prompts.iter_slices(chunk))
    labelled = [classify.submit(rows) for rows in chunks]
    drawn = [generate.submit(rows) for rows in labelled]
    judged = [judge.submit(rows, threshold) for rows in drawn]
    return select.submit(judged).result()


def build(settings: Settings) -> Built:
    """Run the flow and write its result."""
    weave(settings.threshold, settings.chunk).write_parquet(LAST)
    return Built([LAST])
