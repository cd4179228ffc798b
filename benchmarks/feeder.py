"""How much of an engine's rate is left when the stage runner feeds it.

The requests of a generate stage go straight to the engine in this process (`direct`) and through the
product (`stage`: a Ray actor with the same engine and threads, parts, commits, checks), in turns: direct,
stage, direct, stage and so on. Loading is excluded on both sides. A ratio is the stage's rate over the mean
rate of the direct runs before and after it. The scripted engine waits a fixed time in each call and gets the
same calls on both sides, so what its ratio lacks is the runner's own cost.

`quiet` is the ratio with the engine's CPU seconds instead of its wall seconds on both sides: read it on a
busy machine, where wall times mostly show what else was running. `engine` compares the engine's own seconds
(what it lacks is due to how batches are composed: a part is a batch), `all_cpu` the CPU seconds of the direct
engine and of the stage's processes, including all of Ray's.
"""

from __future__ import annotations

from argparse import Namespace
from statistics import median
from typing import Any

import polars as pl
from common import EMBEDDED, Clock, Loom, Report, StageRun, Timed, Work, builtin_prompts, generating, parser, start_ray

from normloom.core.models.protocol import Closing, ModelSpec
from normloom.models import load_model
from normloom.models.registry import parts_at_once
from normloom.workers.resources import Resources

GOALS = {"vllm": 0.98}
GOAL = 0.95  # of the other engines
SMALL = EMBEDDED.model


def engine_spec(given: Namespace) -> ModelSpec:
    """Return the model that an engine runs."""
    options: dict[str, Any] = {}
    if given.engine == "scripted":
        return ModelSpec(engine="scripted", model="bench", options={"latency_s": given.latency})
    if given.engine == "transformers":
        return EMBEDDED
    if given.engine == "openai":
        options = {"base_url": given.base_url}
    return ModelSpec(engine=given.engine, model=given.model, dtype=given.dtype, options=options)


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    engines = ["transformers", "openvino", "vllm", "openai", "scripted"]
    arguments.add_argument("--engine", choices=engines, default="transformers")
    arguments.add_argument("--model", default=SMALL, help="of the engines openvino, vllm and openai")
    arguments.add_argument("--dtype", default="auto")
    arguments.add_argument("--base-url", default="http://127.0.0.1:8000/v1", help="of the engine openai")
    arguments.add_argument("--requests", type=int, default=32)
    arguments.add_argument("--candidates", type=int, default=2, help="of each request")
    arguments.add_argument("--max-tokens", type=int, default=24)
    arguments.add_argument("--parts", type=int, nargs="+", default=[16, 32], help="sizes of part, in rows")
    arguments.add_argument("--threads", type=int, default=1, help="of the actor, and of the direct engine")
    arguments.add_argument("--repeats", type=int, default=2)
    arguments.add_argument("--latency", type=float, default=0.5, help="seconds of each call of the scripted engine")
    given = arguments.parse_args()
    scripted = given.engine == "scripted"
    spec = engine_spec(given)
    report = Report(given.json)

    work = generating(builtin_prompts(given.requests), candidates=given.candidates, max_tokens=given.max_tokens)
    start_ray(given.threads)
    loom = Loom(Resources(actors=1, threads=given.threads))
    report.note("loading the engine here and in the actor, a short run of each")
    engine = load_model(spec, threads=given.threads)
    short = generating(builtin_prompts(2), candidates=1, max_tokens=4)
    first = loom.run(short, spec, 2)
    short.product(loom.inputs(short), short.arguments, model=engine)

    rows = loom.inputs(work)
    runs: list[dict[str, Any]] = []
    before: dict[int, Clock] = {}
    for repeat in range(given.repeats):
        for size in given.parts:
            whole = size if scripted else given.requests
            if whole not in before:
                before[whole], _ = direct(work, rows, engine, whole)
            report.note(f"repeat {repeat + 1} of {given.repeats}: a stage with parts of {size} rows")
            stage = loom.run(work, spec, size)
            after, texts = direct(work, rows, engine, whole)
            runs.append(measured(size, stage, [before[whole], after], texts, overlapping=parts_at_once(spec) > 1))
            before[whole] = after
    loom.pool.close()
    if isinstance(engine, Closing):
        engine.close()
    tell(report, given, runs, first)


def direct(work: Work, rows: pl.DataFrame, engine: Any, size: int) -> tuple[Clock, list[str]]:
    """Give the stage's requests straight to the engine, `size` of them a call; only the engine is timed."""
    timed = Timed(engine)
    texts: list[str] = []
    for part in rows.iter_slices(size):
        texts += work.product(part, work.arguments, model=timed).rows["response"].to_list()
    return timed.clock, texts


def measured(size: int, stage: StageRun, around: list[Clock], texts: list[str], *, overlapping: bool) -> dict[str, Any]:
    """Return the figures of one stage run and the direct runs around it.

    With parts side by side in one actor nothing but the wall time of all tells what they took.
    """
    wall = sum(clock.wall for clock in around) / 2
    cpu = sum(clock.cpu for clock in around) / 2
    engine, engine_cpu = stage.total("engine_s"), stage.total("engine_cpu_s")
    function = stage.total("function_s")
    known = cpu > 0.1 and not overlapping
    same = sum(a == b for a, b in zip(texts, stage.rows["response"], strict=True)) / len(texts)
    return {
        "part_rows": size,
        "direct_s": wall,
        "stage_s": stage.clock.wall,
        "ratio": wall / stage.clock.wall,
        "cpu_ratio": cpu / stage.clock.cpu if known else None,
        "quiet_ratio": cpu / (engine_cpu + stage.clock.wall - engine) if known else None,
        "engine_ratio": None if overlapping else wall / engine,
        "engine_cpu_ratio": cpu / engine_cpu if known else None,
        "same_text": same,
        "stage_function_s": function - engine,
        "read_and_write_s": stage.parts_busy_s - function,
        "queueing_s": None if overlapping else stage.parts_s - stage.parts_busy_s,
        "checks_s": stage.checks_s,
        "tokens": stage.manifest.tokens_out,
    }


def tell(report: Report, given: Namespace, runs: list[dict[str, Any]], first: StageRun) -> None:
    """Print medians for each size of part: the ratios, then where the rest goes."""
    by_size = {size: [run for run in runs if run["part_rows"] == size] for size in given.parts}
    ratios, shares = [], []
    for size, some in by_size.items():
        value = {name: median([run[name] for run in some]) for name in some[0] if some[0][name] is not None}
        spread = [run["ratio"] for run in some]
        ratios.append(
            {
                "part_rows": size,
                "runs": len(some),
                "ratio": value["ratio"],
                "range": f"{min(spread):.2f}-{max(spread):.2f}",
                "goal": "yes" if value["ratio"] >= GOALS.get(given.engine, GOAL) else "no",
                "quiet": value.get("quiet_ratio"),
                "all_cpu": value.get("cpu_ratio"),
                "engine": value.get("engine_ratio"),
                "engine_cpu": value.get("engine_cpu_ratio"),
                "direct_s": value["direct_s"],
                "stage_s": value["stage_s"],
                "tokens/s": value["tokens"] / value["stage_s"],
                "same_text": value["same_text"],
            }
        )
        own = [value.get(name, 0.0) for name in ("stage_function_s", "read_and_write_s", "queueing_s", "checks_s")]
        shares.append(
            {
                "part_rows": size,
                "parts": -(-given.requests // size),
                "function": own[0],
                "files": own[1],
                "queueing": own[2],
                "checks": own[3],
                "together": sum(own),
                "share": sum(own) / value["stage_s"],
            }
        )
    report.add(f"{given.engine}: rate of the stage over the rate of the engine alone", ratios)
    report.add("Where the rest goes (medians, seconds a stage)", shares)
    report.add("First checks of a process", [{"checks_s": first.checks_s, "afterwards_s": shares[0]["checks"]}])
    report.tables["runs"] = runs
    report.end()


if __name__ == "__main__":
    main()
