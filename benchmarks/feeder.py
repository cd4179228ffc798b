"""How much of the engine's rate is left when the stage runner feeds it.

The requests of a generate stage are given straight to the engine in this process (`direct`) and run as
the product runs them (`stage`: Ray actors, parts, commits, checks), in turns: direct, every size of
part, direct, and so on. Loading is left out on both sides. The ratio is the stage's rate over the rate
of the direct runs before and after it.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from common import EMBEDDED, Clock, Loom, Report, StageRun, Timed, Work, builtin_prompts, generating, parser, start_ray

from normloom.models import load_model
from normloom.models.protocol import ModelSpec
from normloom.pool import Resources


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--engine", choices=["transformers", "scripted"], default="transformers")
    arguments.add_argument("--requests", type=int, default=32)
    arguments.add_argument("--candidates", type=int, default=2, help="of each request")
    arguments.add_argument("--max-tokens", type=int, default=24)
    arguments.add_argument("--parts", type=int, nargs="+", default=[16, 32], help="sizes of part, in rows")
    arguments.add_argument("--actors", type=int, default=1)
    arguments.add_argument("--threads", type=int, default=1, help="of each actor, and of the direct engine")
    arguments.add_argument("--repeats", type=int, default=2)
    arguments.add_argument("--latency", type=float, default=0.5, help="seconds of each call of the scripted engine")
    given = arguments.parse_args()
    scripted = ModelSpec(engine="scripted", model="bench", options={"latency_s": given.latency})
    spec = scripted if given.engine == "scripted" else EMBEDDED
    report = Report(given.json)

    work = generating(builtin_prompts(given.requests), candidates=given.candidates, max_tokens=given.max_tokens)
    start_ray(given.actors * given.threads)
    loom = Loom(Resources(actors=given.actors, threads=given.threads))
    report.note("loading the engine here and in the actors, one short run of each")
    engine = load_model(spec, threads=given.threads)
    short = generating(builtin_prompts(2 * given.actors), candidates=1, max_tokens=4)
    first = loom.run(short, spec, 1)
    rows = loom.run(work_of_rows(work), SCRIPTED_ROWS, given.requests).rows  # only to get the input rows' ids
    inputs = rows.select("row_id", "prompt", "labels")
    short.product(inputs.head(2), short.arguments, model=engine)

    runs: list[tuple[int, StageRun, float]] = []
    direct: list[Clock] = [run_direct(work, inputs, engine, given.requests, given.engine, given.parts[0])]
    for repeat in range(given.repeats):
        for size in given.parts:
            report.note(f"repeat {repeat + 1} of {given.repeats}: stage with parts of {size}")
            stage = loom.run(work, spec, size)
            direct.append(run_direct(work, inputs, engine, given.requests, given.engine, size))
            runs.append((size, stage, (direct[-2].wall + direct[-1].wall) / 2))
    tell(report, given, runs, direct, first)
    loom.pool.close()
    report.end()


if __name__ == "__main__":
    main()
