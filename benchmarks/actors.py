"""Layouts of actors and threads, and part sizes, for the embedded model: what a profile should ask for.

Each layout ACTORSxTHREADS runs the same generate and judge stages through the stage runner, in turns and
in reverse order every other time. The first layout is the baseline.
"""

from __future__ import annotations

from statistics import median

from common import EMBEDDED, Loom, Report, StageRun, Work, builtin_prompts, generating, judging, parser, start_ray

from normloom.workers.resources import Resources


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--layouts", nargs="+", default=["2x1", "1x2"], metavar="ACTORSxTHREADS")
    arguments.add_argument(
        "--requests", type=int, default=32, help="prompts of the generate stage, two candidates each"
    )
    arguments.add_argument("--max-tokens", type=int, default=24)
    arguments.add_argument("--generate-parts", type=int, nargs="+", default=[16])
    arguments.add_argument("--judged", type=int, default=32, help="candidates of the judge stage, four questions each")
    arguments.add_argument("--judge-parts", type=int, nargs="+", default=[16])
    arguments.add_argument("--repeats", type=int, default=2)
    given = arguments.parse_args()
    report = Report(given.json)

    sizes = [tuple(map(int, layout.split("x"))) for layout in given.layouts]
    start_ray(sum(actors * threads for actors, threads in sizes))
    looms = {
        layout: Loom(Resources(actors=actors, threads=threads))
        for layout, (actors, threads) in zip(given.layouts, sizes, strict=True)
    }
    for layout, loom in looms.items():
        report.note(f"loading {layout}")
        loom.run(generating(builtin_prompts(2), candidates=1, max_tokens=4), EMBEDDED, 1)
        loom.run(judging(builtin_prompts(2)), EMBEDDED, 1)

    works: list[tuple[Work, int]] = []
    generate = generating(builtin_prompts(given.requests), candidates=2, max_tokens=given.max_tokens)
    works += [(generate, size) for size in given.generate_parts]
    works += [(judging(builtin_prompts(given.judged)), size) for size in given.judge_parts]
    runs: dict[tuple[str, int, str], list[StageRun]] = {}
    for repeat in range(given.repeats):
        order = list(looms.items())[:: 1 if repeat % 2 == 0 else -1]
        for work, size in works:
            for layout, loom in order:
                report.note(f"repeat {repeat + 1} of {given.repeats}: {work.name}, parts of {size} rows, {layout}")
                runs.setdefault((work.name, size, layout), []).append(loom.run(work, EMBEDDED, size))
    for loom in looms.values():
        loom.pool.close()

    lines = []
    for (name, size, layout), some in sorted(runs.items(), key=lambda item: item[0][:2]):
        first = runs[name, size, given.layouts[0]]
        lines.append(
            {
                "stage": name,
                "part_rows": size,
                "layout": layout,
                "rate_ratio": median([a.clock.wall / b.clock.wall for a, b in zip(first, some, strict=True)]),
                "cpu_ratio": median([a.clock.cpu / b.clock.cpu for a, b in zip(first, some, strict=True)]),
                "rows/s": median([run.rows.height / run.clock.wall for run in some]),
                "rows/cpu_s": median([run.rows.height / run.clock.cpu for run in some]),
                "tokens/s": median([run.manifest.tokens_out / run.clock.wall for run in some]),
            }
        )
    report.add(f"Layouts, medians of {given.repeats} runs; ratios to {given.layouts[0]}, more is faster", lines)
    report.end()


if __name__ == "__main__":
    main()
