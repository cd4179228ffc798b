"""Builds of the toy system in a process of their own, for tests that look at it in Prefect's UI."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import polars as pl

from normloom.core.models.protocol import LanguageModel
from normloom.core.stage import Output, Stage
from normloom.run.build import BuildRequest, build
from normloom.store.store import Store
from normloom.testing.toy import Echo, echo, echo_stage, words_stage
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

log = logging.getLogger("normloom.toy")


def tell_and_echo(rows: pl.DataFrame, arguments: Echo, model: LanguageModel) -> Output:
    log.info("the actor echoes %s", ", ".join(rows["word"]))
    return echo(rows, arguments, model)


def toy(*words: str) -> Stage:
    """Words, two echoes of them (the first drops `b` and puts `c` aside) and the echo of both."""
    source = words_stage(*words)
    first = replace(echo_stage(source, drop="b", aside="c"), function=tell_and_echo)
    second = replace(echo_stage(source), name="echo_again")
    return replace(echo_stage(first), name="both", inputs=(first, second))


def main(store: str, words: str, builds: int) -> None:
    request = BuildRequest(system="toy", profile="test", quarantine_budget=0.5)
    for _ in range(builds):
        result = build(toy(*words), request=request, store=Store(Path(store)), pool=Pool(Resources(actors=1)))
        print(result.build)  # noqa: T201  # for the test that started this process
