"""Stages without a model: in the build's process, the default, against processes of their own (`Needs(processes=N)`).

`select` chooses among eight candidates per prompt, in parts of 4,096 prompts. `duplicates` is one part. `bootstrap`
computes the interval of the mean of each of eight groups of drawn values, one part per group. Ray is already running;
starting the processes counts towards each stage that asks for them, as it does in a build.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from common import Marks, Report, parser, start_ray

from normloom.core.fan_out import free
from normloom.core.models.needs import Needs
from normloom.core.stage import Output, Stage
from normloom.core.table import TableRef
from normloom.run.runner import StageRunner
from normloom.schemas import tables
from normloom.steps.args import Args
from normloom.steps.graph import stages_of
from normloom.steps.step import step
from normloom.store.store import Store
from normloom.tasks.duplicates.deduplicate import Deduplication
from normloom.tasks.duplicates.duplicates import duplicates
from normloom.tasks.metrics.mean import mean
from normloom.tasks.rejection.select import select
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

CANDIDATES = 8  # of a prompt
GROUPS = 8  # of bootstraps
WORDS = 2000  # that texts are made of
LETTERS, LENGTH = 6, 12  # of a word, and words of a text


class Size(Args):
    """How many rows a source has."""

    rows: int


@step(makes={"prompt": pl.String}, fan_out=free("a source"))
def prompts(args: Size) -> Output:
    """Return prompts of random words."""
    random = np.random.default_rng(0)
    letters = random.integers(ord("a"), ord("z") + 1, size=(WORDS, LETTERS), dtype=np.uint8)
    words = np.array([row.tobytes().decode() for row in letters], dtype=object)
    drawn = words[random.integers(WORDS, size=(args.rows, LENGTH))]
    rows = pl.DataFrame({"prompt": [" ".join(row) for row in drawn], "content": map(str, range(args.rows))})
    return Output(rows=rows.with_columns(parents=pl.Series([[]] * args.rows, dtype=tables.TEXTS)), attempts=args.rows)


@step(makes=tables.JUDGED, fan_out=free("candidates of the prompts"))
def judged(rows: pl.DataFrame) -> Output:
    """Return judged candidates of each prompt, their verdicts and margins drawn."""
    count = rows.height * CANDIDATES
    random = np.random.default_rng(0)
    fixed = {"round": 0, "attempt": 0, "seed": 0, "finish": "stop", "reason": "", "tokens_out": 0}
    repeated = rows.select(prompt_id="row_id", prompt="prompt").with_columns(attempt=pl.int_ranges(0, CANDIDATES))
    made = repeated.explode("attempt").with_columns(
        parents=pl.concat_list("prompt_id"),
        content=pl.col("attempt").cast(pl.String),
        generator=pl.format("g{}", pl.col("attempt") % 2),
        response="prompt",
        verdict=pl.Series(random.choice(["aligned", "misaligned", "discarded"], count)),
        margin=pl.Series(random.random(count), dtype=pl.Float32),
        checks=pl.lit([], dtype=tables.CHECKS),
        **{name: pl.lit(value) for name, value in fixed.items() if name != "attempt"},
    )
    absent = [
        pl.lit(None).cast(kind).alias(name)
        for name, kind in tables.JUDGED.columns.items()
        if name not in made.columns and name in tables.JUDGED.nullable
    ]
    targets = pl.lit(["safety"], dtype=tables.TEXTS).alias("targets")
    return Output(rows=made.with_columns(*absent, targets), attempts=count)


@step(makes={"group": pl.Int64, "members": pl.List(pl.Float64)}, fan_out=free("a source"))
def groups(args: Size) -> Output:
    """Return groups of drawn values."""
    drawn = np.random.default_rng(0).random((GROUPS, args.rows))
    rows = pl.DataFrame({"group": range(GROUPS), "members": drawn.tolist(), "content": map(str, range(GROUPS))})
    return Output(rows=rows.with_columns(parents=pl.Series([[]] * GROUPS, dtype=tables.TEXTS)), attempts=GROUPS)


@step(makes={"group": pl.Int64, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64}, part_rows=1)
def bootstrap(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the mean of each group with its interval."""
    figures = [mean(np.array(row["members"])) for row in rows.iter_rows(named=True)]
    told = {name: [getattr(one, name) for one in figures] for name in ("value", "low", "high")}
    return rows.select("row_id", "group").with_columns(pl.Series(name, values) for name, values in told.items())


def _select(size: int) -> Stage:
    asked = prompts(Size(rows=size))
    return select(asked, judged(asked))


def _duplicates(size: int) -> Stage:
    return duplicates(prompts(Size(rows=size)), Deduplication())


def _bootstrap(size: int) -> Stage:
    return bootstrap(groups(Size(rows=size)))


FLOWS: dict[str, Callable[[int], Stage]] = {"select": _select, "duplicates": _duplicates, "bootstrap": _bootstrap}


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--stages", nargs="+", choices=FLOWS, default=list(FLOWS))
    arguments.add_argument("--sizes", type=int, nargs="+", default=[8_192, 65_536], help="prompts, or values a group")
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("--repeats", type=int, default=3)
    given = arguments.parse_args()
    report = Report(given.json)
    start_ray(given.processes)
    needs = Needs(processes=given.processes)
    lines = []
    for name in given.stages:
        for size in given.sizes:
            report.note(f"{name}, {size:,} rows")
            stage = FLOWS[name](size)
            with TemporaryDirectory(prefix="normloom-bench-") as folder:
                bench = Bench(Store(Path(folder)), stage)
                default, own = [], []
                for repeat in range(given.repeats):
                    for needed, times in ((None, default), (needs, own))[:: 1 if repeat % 2 == 0 else -1]:
                        times.append(bench.seconds(needed))
            lines.append(
                {
                    "stage": name,
                    "rows": size,
                    "parts": bench.parts,
                    "process_s": median(default),
                    "own_s": median(own),
                    "ratio": median([one / other for one, other in zip(default, own, strict=True)]),
                    "least": min(one / other for one, other in zip(default, own, strict=True)),
                    "most": max(one / other for one, other in zip(default, own, strict=True)),
                }
            )
    title = f"In the build's process against {given.processes} of their own, medians of {given.repeats}"
    report.add(f"{title}; a ratio over 1: its own are quicker", lines)
    report.end()


class Bench:
    """A stage whose inputs are there, and which is made again and again."""

    def __init__(self, store: Store, stage: Stage) -> None:
        self.pool = Pool(Resources(actors=1, threads=1))
        self.runner = StageRunner(system="bench", store=store, pool=self.pool, build="bench", progress=Marks())
        self.stage, self.parts = stage, 0
        self.reads: dict[str, TableRef] = {}
        for upstream in stages_of(stage)[:-1]:
            self.reads[upstream.name] = self._made(upstream)

    def seconds(self, needs: Needs | None) -> float:
        """Return the seconds that the stage takes, checks and publishing included."""
        started = time.perf_counter()
        self._made(replace(self.stage, needs=needs))
        return time.perf_counter() - started

    def _made(self, stage: Stage) -> TableRef:
        reads = ([self.reads[one.name] for one in group] for group in (stage.inputs, stage.sides))
        manifest, _ = self.runner.run(stage, *reads, again="all")
        self.parts = len(manifest.parts)
        return manifest.ref


if __name__ == "__main__":
    main()
