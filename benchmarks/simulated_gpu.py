"""What the platform adds to eight GPUs: actors whose engine waits as long as a GPU would write, and computes nothing.

Simulated: an engine with continuous batching, `--slots` sequences at a time, `--rate` tokens a second in all whatever
the batch (so a sequence alone is as slow as in a full one), no time to read prompts or to load. Real: Ray, the actors,
parts, commits, keys, checks, ledgers. All actors share this machine's processors, which eight GPUs would not.

`ideal` is the same requests, in order, on the first free of all slots: it has the tail of the last sequences too.
`added` is what the stage takes over that. `idle` is the largest share of a stage that one actor had no request at all;
`busy` is the share of all slots' time that was written in. `runner_cpu` is the build's process, in cores.
"""

from __future__ import annotations

import heapq
import json
import os
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from normloom.core.models.protocol import Completion, GenerateRequest, ModelSpec
from normloom.models.registry import Engine
from normloom.models.scripted import ScriptedModel

NAME = "simulated-gpu"
JOURNAL = "NORMLOOM_BENCH_JOURNAL"  # the folder where each process writes when it was asked what
ENGINE = Engine(module="simulated_gpu", attribute="SimulatedGpu", version=1, parts=8, files=False, random=True)


class SimulatedGpu:
    """A scripted model that answers when a GPU would have written the last of a call's texts."""

    def __init__(self, spec: ModelSpec, *, threads: int | None = None) -> None:
        options = dict(spec.options)
        self._slots, rate = int(options.pop("slots")), float(options.pop("rate"))
        self._per_slot = rate / self._slots
        self._model = ScriptedModel(spec.model_copy(update={"options": options}), threads=threads)
        self._free = [0.0] * self._slots
        self._lock = threading.Lock()
        self._journal = Path(os.environ[JOURNAL]) / f"{os.getpid()}.jsonl"

    def score(self, requests: Sequence[Any]) -> Any:
        """Return scores at once."""
        return self._model.score(requests)

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """Return texts when they would be written."""
        asked = time.time()
        with self._lock:
            completions = self._model.generate(requests)
            tokens = [candidate.tokens_out for one in completions for candidate in one.candidates]
            done = written(self._free, tokens, self._per_slot, since=asked)
            with self._journal.open("a") as journal:
                journal.write(json.dumps({"asked": asked, "done": done, "tokens": sum(tokens)}) + "\n")
        time.sleep(max(done - time.time(), 0))
        return completions


def written(free: list[float], tokens: Iterable[int], per_slot: float, *, since: float) -> float:
    """Return when texts of these lengths are all written, each on the slot that is free first; `free` is a heap."""
    last = since
    for count in tokens:
        end = max(heapq.heappop(free), since) + count / per_slot
        heapq.heappush(free, end)
        last = max(last, end)
    return last


def main() -> None:
    """Measure and print."""
    from common import Report, parser

    arguments = parser(__doc__)
    arguments.add_argument("--actors", type=int, default=8)
    arguments.add_argument("--rate", type=float, default=5000, help="tokens a second of one GPU")
    arguments.add_argument("--slots", type=int, default=256, help="sequences written side by side")
    arguments.add_argument("--requests", type=int, default=20_000)
    arguments.add_argument(
        "--tokens", type=int, default=120, help="mean length of a text, half of it to one and a half"
    )
    arguments.add_argument("--part-rows", nargs="+", type=int, default=[64])
    given = arguments.parse_args()
    report = Report(given.json)
    with TemporaryDirectory(prefix="normloom-bench-") as folder:
        declare(Path(folder))
        title = f"{given.requests:,} requests, {given.actors} actors of {given.rate:g} tokens/s"
        report.add(title, measured(given, report, folder))
    report.end()


def declare(folder: Path) -> None:
    """Install the engine for this process and those that it starts."""
    information = folder / "simulated_gpu-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: simulated-gpu\nVersion: 1\n")
    (information / "entry_points.txt").write_text(f"[normloom.engines]\n{NAME} = simulated_gpu:ENGINE\n")
    paths = [str(folder), str(Path(__file__).parent)]
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
    os.environ[JOURNAL] = str(folder)


def measured(given: Namespace, report: Any, folder: str) -> list[dict[str, Any]]:
    """Return a line for each size of part."""
    from common import Loom, generating, start_ray

    from normloom.workers.resources import Resources

    start_ray(given.actors)
    loom = Loom(Resources(actors=given.actors, threads=1))
    options = {"rate": given.rate, "slots": given.slots, "words": given.tokens}
    spec = ModelSpec(engine=NAME, model="gpu", options=options)
    work = generating([f"prompt {number}" for number in range(given.requests)], candidates=1, max_tokens=4_096)
    loom.run(generating(["warm"] * 8, candidates=1, max_tokens=4), spec, 1)
    rows = []
    for part_rows in given.part_rows:
        report.note(f"parts of {part_rows} rows")
        for path in Path(folder).glob("*.jsonl"):
            path.unlink()
        cpu = time.process_time()
        run = loom.run(work, spec, part_rows)
        ran = time.process_time() - cpu
        rows.append(line(given, part_rows, run, folder, ran))
    loom.pool.close()
    return rows


def journals(folder: str) -> dict[str, list[dict[str, float]]]:
    """Return the calls of each actor."""
    return {
        path.stem: [json.loads(text) for text in path.read_text().splitlines()] for path in Path(folder).glob("*.jsonl")
    }


def line(given: Namespace, part_rows: int, run: Any, folder: str, cpu: float) -> dict[str, Any]:
    """Return the figures of one run; what actors did is looked at from the first request to the last text."""
    calls = journals(folder)
    wall = run.clock.wall
    tokens = run.rows["tokens_out"].to_list()
    ideal = written([0.0] * (given.slots * given.actors), tokens, given.rate / given.slots, since=0.0)
    first = min(call["asked"] for own in calls.values() for call in own)
    last = max(call["done"] for own in calls.values() for call in own)
    window = last - first
    idle = [1 - covered(own, first, last) / window for own in calls.values()]
    return {
        "part_rows": part_rows,
        "tokens": sum(tokens),
        "ideal_s": ideal,
        "stage_s": wall,
        "added": wall / ideal - 1,
        "writing_s": window,
        "busy": sum(tokens) / (given.rate * given.actors * window),
        "idle": max(idle) if len(idle) == given.actors else 1.0,
        "runner_cpu": cpu / wall,
    }


def covered(calls: Sequence[dict[str, float]], first: float, last: float) -> float:
    """Return for how many seconds at least one of the calls was under way."""
    total, reached = 0.0, first
    for call in sorted(calls, key=lambda call: call["asked"]):
        start, end = max(call["asked"], reached), min(call["done"], last)
        total += max(end - start, 0.0)
        reached = max(reached, end)
    return total


if __name__ == "__main__":
    main()
