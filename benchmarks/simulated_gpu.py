"""What the platform adds to eight GPUs: actors whose engine waits as long as a GPU would write, and computes nothing.

Simulated: an engine with continuous batching, `--slots` sequences at a time, `--rate` tokens per second in total
whatever the batch (so a single sequence is as slow as in a full batch), no time to read prompts or to load: each actor
has made a part before the clock starts. Real: Ray, the actors, parts, commits, keys, checks, ledgers. All actors share
this machine's processors, unlike on real GPU machines; at a quarter of the rate, for instance, the processors count
for four times as many. Texts are half to one and a half times `--tokens` long, or, with `--tail`, exponentially
distributed and cut at four times the mean.

`ideal` is the same requests, in order, each on the first free slot, so it has the tail of the last sequences too.
`added` is what the stage takes on top. Actors are observed from the first request to the last text: `idle` is the
largest share of that time in which one actor had no request at all, `busy` the share of all slots' time in use,
`last_start` the delay until the last actor had its first request. `empty` is the largest unused share of an actor's
slots between its first and its last request, that is while parts were left; `turn` is the median time from the last
text of a part to the first request of the part that takes its place. `cpu` is the CPU time of all processes, `runner`
that of the build's own process.

The engine alone is the same number of processes taking the same parts from a counter: no Ray, no files, no driver.
What it adds to the ideal is due to the simulation itself.
"""

from __future__ import annotations

import heapq
import json
import multiprocessing
import os
import sys
import threading
import time
from argparse import Namespace
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from normloom.core.models.protocol import Completion, GenerateRequest, ModelSpec, Sampling
from normloom.models.engines import VLLM
from normloom.models.registry import Engine, parts_at_once
from normloom.models.requests.progress import current_teller
from normloom.models.scripted import ScriptedModel

NAME = "simulated-gpu"
JOURNAL = "NORMLOOM_BENCH_JOURNAL"  # the folder where each process writes when it was asked what
ENGINE = Engine(
    module="simulated_gpu",
    attribute="SimulatedGpu",
    version=1,
    parts=VLLM.parts,
    rows=VLLM.rows,
    files=False,
    random=True,
)
LONGEST = 4  # times the mean
TOLD_SECONDS = 0.1  # at most after a text is written


class SimulatedGpu:
    """A scripted model that answers when a GPU would have written the last of a call's texts."""

    def __init__(self, spec: ModelSpec, *, threads: int | None = None) -> None:
        options = dict(spec.options)
        self.requests_at_once, rate = int(options.pop("slots")), float(options.pop("rate"))
        self._per_slot, self._tail = rate / self.requests_at_once, bool(options.pop("tail"))
        self._model = ScriptedModel(spec.model_copy(update={"options": options}), threads=threads)
        self._free = [0.0] * self.requests_at_once
        self._lock = threading.Lock()
        self._journal = Path(os.environ[JOURNAL]) / f"{os.getpid()}.jsonl"

    def score(self, requests: Sequence[Any]) -> Any:
        """Return scores at once."""
        return self._model.score(requests)

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """Return texts when they would be written."""
        asked = time.time()
        completions = self._model.generate(requests)
        mean = self._model.options.words
        tokens = [
            min(length(seed, mean, tail=self._tail), request.sampling.max_tokens)
            for request in requests
            for seed in request.seeds
        ]
        with self._lock:
            spans = written(self._free, tokens, self._per_slot, since=asked)
        done = self._write([end for _, end in spans])
        with self._lock, self._journal.open("a") as journal:
            journal.write(json.dumps({"asked": asked, "done": done, "spans": spans}) + "\n")
        return completions

    def _write(self, ends: list[float]) -> float:
        """Tell of each text when it is written, within a tenth of a second, and return when the last one is."""
        tell, ends = current_teller(), sorted(ends)
        told = 0
        while told < len(ends):
            time.sleep(max(min(ends[told] + TOLD_SECONDS, ends[-1]) - time.time(), 0))
            told = bisect_right(ends, time.time())
            tell(told / len(ends))
        return ends[-1]


def length(seed: int, mean: int, *, tail: bool) -> float:
    """Return how many tokens the text of a seed has."""
    drawn = np.random.default_rng(seed)
    return min(1 + drawn.exponential(mean), LONGEST * mean) if tail else mean * drawn.uniform(0.5, 1.5)


def written(free: list[float], tokens: Iterable[float], per_slot: float, *, since: float) -> list[tuple[float, float]]:
    """Return when each text is begun and ended, each on the slot that is free first; `free` is a heap."""
    spans = []
    for count in tokens:
        begin = max(heapq.heappop(free), since)
        spans.append((begin, begin + count / per_slot))
        heapq.heappush(free, spans[-1][1])
    return spans


def main() -> None:
    """Measure and print."""
    from common import Report, parser

    arguments = parser(__doc__)
    arguments.add_argument("--actors", type=int, default=8)
    arguments.add_argument("--rate", type=float, default=5000, help="tokens per second of one GPU")
    arguments.add_argument("--slots", type=int, default=256, help="sequences generated concurrently")
    arguments.add_argument("--requests", type=int, default=20_000)
    arguments.add_argument("--tokens", type=int, default=120, help="mean length of a text")
    arguments.add_argument("--tail", action="store_true", help="exponentially distributed lengths")
    arguments.add_argument("--part-rows", nargs="+", type=int, default=[64])
    arguments.add_argument("--parts", type=int, help="parts in flight per actor, instead of vLLM's number")
    arguments.add_argument("--alone", action="store_true", help="also measure the engine alone")
    given = arguments.parse_args()
    options = {"rate": given.rate, "slots": given.slots, "words": given.tokens, "tail": given.tail}
    spec = ModelSpec(engine=NAME, model="gpu", options=options, parts=given.parts)
    report = Report(given.json)
    with TemporaryDirectory(prefix="normloom-bench-") as folder:
        declare(Path(folder))
        title = f"{given.requests:,} requests, {given.actors} actors of {given.rate:g} tokens/s"
        if given.alone:
            report.add(f"{title}: the engine alone", [alone(given, spec, rows, folder) for rows in given.part_rows])
        report.add(title, measured(given, spec, report, folder))
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


def measured(given: Namespace, spec: ModelSpec, report: Any, folder: str) -> list[dict[str, Any]]:
    """Return a line for each size of part."""
    from common import Loom, generating, start_ray

    from normloom.workers.resources import Resources

    start_ray(given.actors)
    loom = Loom(Resources(actors=given.actors, threads=1))
    work = generating([f"prompt {number}" for number in range(given.requests)], candidates=1, max_tokens=4_096)
    take_journals(folder)
    while len(list(Path(folder).glob("*.jsonl"))) < given.actors:
        loom.run(generating(["warm"] * given.actors, candidates=1, max_tokens=4), spec, 1)
    rows = []
    for part_rows in given.part_rows:
        report.note(f"parts of {part_rows} rows")
        take_journals(folder)
        cpu = time.process_time()
        run = loom.run(work, spec, part_rows)
        runner = (time.process_time() - cpu) / run.clock.wall
        ideal = ideally(given, [length(seed, given.tokens, tail=given.tail) for seed in run.rows["seed"]])
        took = {"ideal_s": ideal, "stage_s": run.clock.wall, "added": run.clock.wall / ideal - 1}
        spent = {"cpu_s": run.clock.cpu, "runner_cores": runner}
        size = {"part_rows": part_rows, "parts": spec.parts or "as needed"}
        rows.append({**size, **took, **watched(given, take_journals(folder)), **spent})
    loom.pool.close()
    return rows


def alone(given: Namespace, spec: ModelSpec, part_rows: int, folder: str) -> dict[str, Any]:
    """Return the figures of the engine in processes of its own that take parts from a counter."""
    context = multiprocessing.get_context("spawn")
    taken, ready = context.Value("q", 0), context.Barrier(given.actors)
    parts = parts_at_once(spec, part_rows)
    arguments = (spec, given.requests, part_rows, parts, taken, ready)
    processes = [context.Process(target=feed, args=arguments) for _ in range(given.actors)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    calls = take_journals(folder)
    ideal = ideally(given, [length(seed, given.tokens, tail=given.tail) for seed in range(given.requests)])
    seen = watched(given, calls)
    size = {"part_rows": part_rows, "parts": parts}
    return {**size, "ideal_s": ideal, "added": seen["writing_s"] / ideal - 1, **seen}


def feed(spec: ModelSpec, requests: int, part_rows: int, parts: int, taken: Any, ready: Any) -> None:
    """Give an engine parts as long as there are any, several at a time; it begins when all processes are there."""
    model = SimulatedGpu(spec)

    def work() -> None:
        while True:
            with taken.get_lock():
                start, taken.value = taken.value, taken.value + part_rows
            if start >= requests:
                return
            part = range(start, min(start + part_rows, requests))
            sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=4_096)
            model.generate(
                [
                    GenerateRequest(instruction="", prompt=f"prompt {number}", seeds=(number,), sampling=sampling)
                    for number in part
                ]
            )

    ready.wait()
    with ThreadPoolExecutor(parts) as threads:
        for _ in range(parts):
            threads.submit(work)


def take_journals(folder: str) -> dict[str, list[dict[str, Any]]]:
    """Return the calls of each process, and begin with none again."""
    calls = {}
    for path in Path(folder).glob("*.jsonl"):
        calls[path.stem] = [json.loads(text) for text in path.read_text().splitlines()]
        path.unlink()
    return calls


def ideally(given: Namespace, tokens: Iterable[float]) -> float:
    """Return the seconds that the texts take if each is on the first free of all slots."""
    slots = [0.0] * (given.slots * given.actors)
    return max(end for _, end in written(slots, tokens, given.rate / given.slots, since=0.0))


def watched(given: Namespace, calls: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Return what actors did, from the first request to the last text."""
    first = min(call["asked"] for own in calls.values() for call in own)
    last = max(call["done"] for own in calls.values() for call in own)
    window = last - first
    idle = [1 - covered(own, first, last) / window for own in calls.values()]
    texts = sum(end - begin for own in calls.values() for call in own for begin, end in call["spans"])
    return {
        "writing_s": window,
        "busy": texts / (given.slots * given.actors * window),
        "idle": max(idle) if len(idle) == given.actors else 1.0,
        "last_start_s": max(min(call["asked"] for call in own) for own in calls.values()) - first,
        "empty": max(empty(own, given.slots) for own in calls.values()),
        "turn_s": median([turn for own in calls.values() for turn in turns(own)] or [0.0]),
    }


def turns(calls: Sequence[dict[str, Any]]) -> list[float]:
    """Return the seconds from the last text of each part of an actor to the first request of the one in its place."""
    done = sorted(call["done"] for call in calls)
    asked = [at for at in sorted(call["asked"] for call in calls) if at > done[0]]
    return [later - earlier for earlier, later in zip(done, asked, strict=False)]


def empty(calls: Sequence[dict[str, Any]], slots: int) -> float:
    """Return the share of an actor's slots that nothing was written in, from its first request to its last."""
    first, last = min(call["asked"] for call in calls), max(call["asked"] for call in calls)
    used = sum(max(min(end, last) - begin, 0.0) for call in calls for begin, end in call["spans"])
    return 1 - used / (slots * (last - first)) if last > first else 0.0


def covered(calls: Sequence[dict[str, Any]], first: float, last: float) -> float:
    """Return for how many seconds at least one of the calls was under way."""
    total, reached = 0.0, first
    for call in sorted(calls, key=lambda call: call["asked"]):
        start, end = max(call["asked"], reached), min(call["done"], last)
        total += max(end - start, 0.0)
        reached = max(reached, end)
    return total


if __name__ == "__main__":
    main()
