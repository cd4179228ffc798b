"""Shared by the benchmarks: timing, prompts, stages that time their model, tables and --json."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import psutil
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from normloom.core.contract import Contract
from normloom.core.fan_out import FanOut, each
from normloom.core.models.protocol import GenerateRequest, LanguageModel, ModelSpec, Sampling, ScoreRequest
from normloom.core.outlook import Outlook
from normloom.core.stage import Output, Stage
from normloom.core.table import Manifest, PartRecord, TableRef
from normloom.prefect.quiet import quiet_libraries
from normloom.run.runner import StageRunner
from normloom.schemas import tables
from normloom.schemas.prompts import MEASURE
from normloom.store.store import Store
from normloom.tasks.rejection.generate import Generation, generate
from normloom.tasks.rejection.judge import Scoring, score
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

EMBEDDED = ModelSpec(model="SmolLM2-135M-Instruct", dtype="float32")


# -- time -------------------------------------------------------------------------------------------------------------


@dataclass
class Clock:
    """Wall seconds and CPU seconds of a block; `everything` counts this process and all it started."""

    everything: bool = False
    wall: float = 0.0
    cpu: float = 0.0

    @contextmanager
    def running(self) -> Iterator[Clock]:
        """Time a block, adding to what was timed before."""
        wall, cpu = time.perf_counter(), self._cpu()
        try:
            yield self
        finally:
            self.wall += time.perf_counter() - wall
            self.cpu += self._cpu() - cpu

    def _cpu(self) -> float:
        if not self.everything:
            return time.process_time()
        total = 0.0
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            total += times.user + times.system
        return total


class Timed:
    """A model that adds up what its engine took."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.clock = Clock()

    def generate(self, requests: Sequence[GenerateRequest]) -> Any:
        """Generate, timed."""
        with self.clock.running():
            return self._model.generate(requests)

    def score(self, requests: Sequence[ScoreRequest]) -> Any:
        """Score, timed."""
        with self.clock.running():
            return self._model.score(requests)


# -- stages -----------------------------------------------------------------------------------------------------------

ASKED = Contract(
    columns={"history": tables.MESSAGES, "prompt": pl.String(), "labels": tables.LABELS},
    nullable=frozenset({"history"}),
)
DRAWN = Contract(columns=tables.CANDIDATES.columns, nullable=tables.CANDIDATES.nullable)


class Texts(BaseModel):
    """The prompts of a run."""

    model_config = ConfigDict(frozen=True)
    texts: tuple[str, ...]


def ask(arguments: Texts) -> Output:
    """Return the prompts, each with one label, so that candidates are drawn for it."""
    label = [[{"dimension": "safety", "label": "safety/none", "probability": 1.0}]] * len(arguments.texts)
    rows = pl.DataFrame({"prompt": arguments.texts, "labels": label, "content": arguments.texts})
    alone = pl.lit(None, dtype=tables.MESSAGES)
    return Output(rows=_without_parents(rows.with_columns(history=alone)), attempts=rows.height)


def respond(arguments: Texts) -> Output:
    """Return the prompts as candidates, each with another prompt as its response."""
    count = len(arguments.texts)
    rows = pl.DataFrame({"prompt": arguments.texts, "response": arguments.texts[1:] + arguments.texts[:1]})
    fixed = {"prompt_id": "", "generator": "none", "round": 0, "attempt": 0, "seed": 0, "finish": "stop"}
    rows = rows.with_columns(
        content="prompt",
        history=pl.lit(None, dtype=tables.MESSAGES),
        reasoning=pl.lit(None, dtype=pl.String),
        targets=pl.Series([["safety"]] * count, dtype=tables.TEXTS),
        wanted=pl.lit(None, dtype=pl.String),
        diagnosis=pl.lit(None, dtype=pl.String),
        tokens_out=pl.lit(0),
        **{name: pl.lit(value) for name, value in fixed.items()},
    )
    return Output(rows=_without_parents(rows), attempts=count)


def _without_parents(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(parents=pl.Series([[]] * rows.height, dtype=tables.TEXTS))


def drawn(rows: pl.DataFrame, arguments: Generation, model: LanguageModel) -> Output:
    """Draw candidates as the product does."""
    return generate.function(rows, arguments, model, generator="bench")


def timed_candidates(rows: pl.DataFrame, arguments: Generation, model: LanguageModel) -> Output:
    """Draw candidates as the product does; the part's metrics say what its engine took."""
    return _timed(drawn, rows, arguments, model)


def timed_scores(rows: pl.DataFrame, arguments: Scoring, model: LanguageModel) -> Output:
    """Ask the judge about candidates as the product does; the part's metrics say what its engine took."""
    return _timed(score.function, rows, arguments, model)


def _timed(function: Callable[..., Output], rows: pl.DataFrame, arguments: BaseModel, model: Any) -> Output:
    timed, clock = Timed(model), Clock()
    with clock.running():
        output = function(rows, arguments, model=timed)
    took = {"engine_s": timed.clock.wall, "engine_cpu_s": timed.clock.cpu, "function_s": clock.wall}
    return replace(output, metrics=took)


@dataclass(frozen=True)
class Work:
    """A source of prompts and the stage that a model does with them."""

    name: str
    source: Stage
    function: Callable[..., Output]
    product: Callable[..., Output]
    arguments: BaseModel
    contract: Contract
    fan_out: FanOut

    def stage(self, model: ModelSpec, part_rows: int) -> Stage:
        """Return the stage at a size of part."""
        return Stage(
            name=self.name,
            function=self.function,
            arguments=self.arguments,
            contract=self.contract,
            inputs=(self.source,),
            model=model,
            part_rows=part_rows,
            fan_out=self.fan_out,
        )


def generating(texts: Sequence[str], *, candidates: int, max_tokens: int) -> Work:
    """Return the work of drawing candidates, sampled as in the local profile."""
    source = Stage(name="ask", function=ask, arguments=Texts(texts=tuple(texts)), contract=ASKED)
    arguments = Generation(
        candidates=candidates,
        sampling=Sampling(temperature=0.7, top_p=0.9, max_tokens=max_tokens),
    )
    return Work("generate", source, timed_candidates, drawn, arguments, tables.CANDIDATES, each(candidates))


def judging(texts: Sequence[str]) -> Work:
    """Return the work of judging responses: four questions about each."""
    source = Stage(name="respond", function=respond, arguments=Texts(texts=tuple(texts)), contract=DRAWN)
    return Work("judge", source, timed_scores, score.function, Scoring(), tables.CHECKED, each())


def builtin_prompts(count: int) -> list[str]:
    """Return the first prompts of the built-in measuring half."""
    texts: list[str] = pl.read_csv(MEASURE)["prompt"].to_list()
    if count > len(texts):
        raise SystemExit(f"there are {len(texts)} built-in prompts, {count} were asked for")
    return texts[:count]


# -- runs of the stage runner -----------------------------------------------------------------------------------------


@dataclass
class Marks:
    """A progress that remembers when checks began."""

    checks: float = 0.0

    def begin(self, stage: str, *, total: int, done: int) -> None:
        """Ignore the start."""

    def note(self, stage: str, text: str) -> None:  # noqa: ARG002
        """Keep the time of the checks."""
        if text == "checks":
            self.checks = time.perf_counter()

    def advance(self, stage: str, part: PartRecord) -> None:
        """Ignore the part."""

    def within(self, stage: str, part: int, rows: int) -> None:
        """Ignore what is done of a part."""

    def end(self, manifest: Manifest, *, reused: bool) -> None:
        """Ignore the end."""

    def whole(self, outlook: Outlook) -> None:
        """Ignore how far the build is."""


@dataclass
class StageRun:
    """One run of a stage by the runner: its times, and its table."""

    clock: Clock
    parts_s: float  # from the start of the run to the last part's commit, keys and locks included
    checks_s: float  # checks, content hash, manifest
    manifest: Manifest
    rows: pl.DataFrame

    def total(self, metric: str) -> float:
        """Return a metric added up over the parts."""
        return sum(part.metrics[metric] for part in self.manifest.parts)

    @property
    def parts_busy_s(self) -> float:
        """Seconds that actors spent on parts, added up."""
        return sum(part.seconds for part in self.manifest.parts)


@dataclass
class Loom:
    """A pool of actors on which stages are run, each time into a new store, so that nothing is reused."""

    resources: Resources
    pool: Pool = field(init=False)

    def __post_init__(self) -> None:
        self.pool = Pool(self.resources)

    def inputs(self, work: Work) -> pl.DataFrame:
        """Return the rows that a stage reads, with the ids that they have in every run."""
        with TemporaryDirectory(prefix="normloom-bench-") as folder:
            store = Store(Path(folder))
            runner = StageRunner(system="bench", store=store, pool=self.pool, build="bench", progress=Marks())
            return store.scan(runner.run(work.source, [], [])[0].ref).collect()

    def run(self, work: Work, model: ModelSpec, part_rows: int) -> StageRun:
        """Run a stage from its key to its published table; the source is made before and not timed."""
        marks = Marks()
        with TemporaryDirectory(prefix="normloom-bench-") as folder:
            store = Store(Path(folder))
            runner = StageRunner(system="bench", store=store, pool=self.pool, build="bench", progress=marks)
            source: TableRef = runner.run(work.source, [], [])[0].ref
            clock, started = Clock(everything=True), time.perf_counter()
            with clock.running():
                manifest, _ = runner.run(work.stage(model, part_rows), [source], [])
                ended = time.perf_counter()
            rows = store.scan(manifest.ref).collect()
        return StageRun(clock, marks.checks - started, ended - marks.checks, manifest, rows)


def start_ray(cpus: int) -> None:
    """Start Ray with room for every pool of a benchmark; idle actors take memory, not time."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    ray.init(address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level="error")


# -- what is printed --------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """Tables for people, or the same as JSON."""

    as_json: bool
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Say what is being done, on stderr."""
        print(text, file=sys.stderr, flush=True)

    def add(self, title: str, rows: list[dict[str, Any]]) -> None:
        """Add a table, all rows with the same columns, and print it at once unless JSON is wanted."""
        self.tables[title] = rows
        if self.as_json or not rows:
            return
        table = Table(title=title, title_justify="left", title_style="bold")
        for name, value in rows[0].items():
            table.add_column(name, justify="left" if isinstance(value, str) else "right")
        for row in rows:
            table.add_row(*(_shown(value) for value in row.values()))
        Console(width=None if sys.stdout.isatty() else 130).print(table)

    def end(self) -> None:
        """Print the JSON."""
        if self.as_json:
            print(json.dumps({"machine": machine(), **self.tables}, indent=1))


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    return {"cores": os.cpu_count(), "load_1min": round(os.getloadavg()[0], 2), "python": sys.version.split()[0]}


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return an argument parser with what all benchmarks take."""
    quiet_libraries()
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return made


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return "" if value is None else str(value)
