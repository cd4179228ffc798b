"""What planning which model to unload saves: loads and seconds of a flow whose models do not all fit.

Three models take turns as in a build with rejection sampling (one labels, one writes, one judges, and back again),
with room for two. They are one model under three sets of options, so that all loads cost the same. `each stage`
unloads the models after every stage, like platforms that start an engine per stage; `as they come` keeps what fits
and unloads the oldest; `planned` unloads the model whose next use is furthest away, as builds do.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import EMBEDDED, Marks, Report, Work, builtin_prompts, generating, parser, start_ray

from normloom.core.models.protocol import ModelSpec
from normloom.run.runner import StageRunner
from normloom.store.store import Store
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

TURNS = "LWJWJWJL"  # who is at work: the one that labels, writes, judges
POLICIES = ("each stage", "as they come", "planned")


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--engine", choices=["transformers", "scripted"], default="transformers")
    arguments.add_argument("--requests", type=int, default=4, help="of each stage")
    arguments.add_argument("--max-tokens", type=int, default=8)
    arguments.add_argument("--turns", default=TURNS, help="the model of each stage, one letter per stage")
    arguments.add_argument("--room", type=int, default=2, help="models that fit at once")
    given = arguments.parse_args()
    base = ModelSpec(engine="scripted", model="bench") if given.engine == "scripted" else EMBEDDED
    uses = [model(base, turn) for turn in given.turns]
    work = generating(builtin_prompts(given.requests), candidates=1, max_tokens=given.max_tokens)
    report = Report(given.json)
    start_ray(given.room)
    runs = []
    for policy in POLICIES:
        report.note(f"{len(uses)} stages, {policy}")
        runs.append(run(policy, uses, work))
    for figures in runs:
        figures["ratio"] = figures["seconds"] / runs[-1]["seconds"]
    report.add(f"{len(set(given.turns))} models in turns {given.turns}, room for {given.room}", runs)
    report.end()


def model(base: ModelSpec, turn: str) -> ModelSpec:
    """Return the model of a turn: another to the pool, the same to the machine."""
    if base.engine == "scripted":
        return base.model_copy(update={"model": turn})
    return base.model_copy(update={"options": {"max_length": 1000 + ord(turn)}})


def run(policy: str, uses: Sequence[ModelSpec], work: Work) -> dict[str, Any]:
    """Run the stages one after another under a policy; Ray is there already."""
    pool = Pool(Resources(), uses=uses if policy == "planned" else ())
    started, loads, loading = time.perf_counter(), 0, 0.0
    with TemporaryDirectory(prefix="normloom-bench-") as folder:
        store = Store(Path(folder))
        for number, spec in enumerate(uses):
            runner = StageRunner(system=f"turn{number}", store=store, pool=pool, build="bench", progress=Marks())
            source = runner.run(work.source, [], [])[0].ref
            manifest, _ = runner.run(work.stage(spec, 32), [source], [])
            loads += manifest.work.loads if manifest.work else 0
            loading += manifest.load_seconds
            if policy == "each stage":
                pool.close()
                pool = Pool(Resources())
    pool.close()
    return {"policy": policy, "loads": loads, "loading_s": loading, "seconds": time.perf_counter() - started}


if __name__ == "__main__":
    main()
