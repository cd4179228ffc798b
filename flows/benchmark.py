"""The benchmark of models on prompts with aligned and misaligned responses (Mis-Align Bench, arXiv 2602.11305).

As a detector a model judges stored responses whose alignment is known; as a responder it answers the prompts and a
panel of judges checks what it wrote.
"""

from __future__ import annotations

from pathlib import Path

from normloom.flows.benchmark_config import BenchmarkConfig
from normloom.flows.leaderboard import sections
from normloom.flows.system import System
from normloom.schemas.taxonomy import DIMENSIONS
from normloom.stage import Stage
from normloom.tasks.detect import Reading, detect, read, write
from normloom.tasks.evaluation_figures import evaluate_detectors, evaluate_responders
from normloom.tasks.ingest_dataset import dataset_columns, ingest_dataset, items
from normloom.tasks.item_results import detector_results, responder_results
from normloom.tasks.leaderboard import DETECTOR, RESPONDER, leaderboard
from normloom.tasks.respond import assess, questions, respond

NAME = "benchmark"


def benchmark(config: BenchmarkConfig, dataset: Stage | None = None) -> list[Stage]:
    """Return the last stages of the build, the leaderboard; `dataset` is the published table that is evaluated."""
    models, source, own = config.models, config.published, None
    if dataset is None or source is None:
        dataset = ingest_dataset(config.ingestion)
        own = dataset_columns(dataset, config.ingestion)
        source = Path(config.source.path).name if config.source.path else "built-in"
    rows = items(dataset, arguments=config.choice(source))

    figures, results = [], []
    if DETECTOR in config.modes:
        detected = [_detected(rows, config, name) for name in models]
        figures.append(evaluate_detectors(detected, arguments=config.evaluating))
        results.append(detector_results(detected, rows, dataset, dimensions=DIMENSIONS, own=own))
    if RESPONDER in config.modes:
        asked = questions(rows)
        responses = {
            name: respond(asked, arguments=config.responding(name), model=model, part_rows=config.responder.part_rows)
            for name, model in models.items()
        }
        assessed = [
            assess(drawn, of=name, arguments=config.assessing(judge), model=model, part_rows=config.judge.part_rows)
            for judge, model in config.judges.items()
            for name, drawn in responses.items()
        ]
        figures.append(evaluate_responders(assessed, arguments=config.evaluating))
        answers = list(responses.values())
        results.append(responder_results(assessed, answers, rows, dataset, dimensions=DIMENSIONS, own=own))
    return [leaderboard(figures, rows, arguments=config.standing(source)), *results]


def _detected(rows: Stage, config: BenchmarkConfig, name: str) -> Stage:
    """Return the stage of one detector's verdicts, scored or written."""
    model, part_rows = config.models[name], config.detector.part_rows
    if config.detector.verdict == "scored":
        return detect(rows, arguments=config.detecting(name), model=model, part_rows=part_rows)
    replies = write(rows, arguments=config.writing(name), model=model, part_rows=part_rows)
    return read(rows, replies, arguments=Reading(model=name))


def reads(config: BenchmarkConfig) -> dict[str, str]:
    """Return the published table that the benchmark starts from."""
    return {"dataset": config.published} if config.published else {}


BENCHMARK = System(
    name=NAME, title="Benchmark of models", config=BenchmarkConfig, flow=benchmark, reads=reads, sections=sections
)
