"""A build of the toy system in a process of its own, for tests that look at it in Prefect's UI."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from toy import SCRIPTED, Echo, echo, echo_stage, words_stage

import normloom.build
from normloom.build import BuildRequest, build
from normloom.graph import stages_of
from normloom.lineage_page import Lineage, publish_build, publish_stage
from normloom.models.protocol import LanguageModel
from normloom.pool import Pool, Resources
from normloom.progress import LogProgress
from normloom.run_progress import RunProgress
from normloom.stage import Output, Stage
from normloom.store import Store

if TYPE_CHECKING:
    from normloom.table import Manifest

log = logging.getLogger("normloom.toy")


def tell_and_echo(rows: pl.DataFrame, arguments: Echo, model: LanguageModel) -> Output:
    log.info("the actor echoes %s", ", ".join(rows["word"]))
    return echo(rows, arguments, model)


def toy(*words: str) -> Stage:
    """Words, two echoes of them (the first drops `b` and puts `c` aside) and the echo of both."""
    source = words_stage(*words)
    model = SCRIPTED.model_copy(update={"options": {"words": 4, "latency_s": 1.5}})
    first = replace(echo_stage(source, drop="b", aside="c", model=model), function=tell_and_echo)
    second = replace(echo_stage(source, model=model), name="echo_again")
    return replace(echo_stage(first, model=model), name="both", inputs=(first, second))


class _Paged(normloom.build._Weaving):
    @cached_property
    def lineage(self) -> Lineage:
        graph = {stage.name: [upstream.name for upstream in stage.upstream] for stage in stages_of(*self.stages)}
        return Lineage(system=self.request.system, build=self.runner.build, graph=graph)

    def make(self, stage: Stage, *refs: list) -> tuple[Manifest, bool]:
        manifest, reused = super().make(stage, *refs)
        self.lineage.manifests[stage.name] = manifest
        publish_stage(self.lineage, stage.name)
        return manifest, reused

    def run(self) -> None:
        super().run()
        publish_build(self.lineage, loads=self.runner.pool.loads, lock=f"{self.runner.build}.yaml", seconds=1.0)


def main(store: str, words: str) -> None:
    normloom.build._Weaving = _Paged
    request = BuildRequest(system="toy", profile="test", quarantine_budget=0.5)
    pool = Pool(Resources(actors=1))
    result = build(
        toy(*words), request=request, store=Store(Path(store)), pool=pool, progress=RunProgress(LogProgress())
    )
    print(result.build)  # noqa: T201  # for the test that started this process


if __name__ == "toy_build":
    main(*sys.argv[1:])
