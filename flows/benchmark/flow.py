"""The benchmark of models on prompts with aligned and misaligned responses (Mis-Align Bench, arXiv 2602.11305).

As a detector a model judges stored responses whose alignment is known; as a responder it answers the prompts and a
panel of judges checks what it wrote.
"""

from __future__ import annotations

from pathlib import Path

from normloom.core.errors import ConfigError
from normloom.core.stage import Stage
from normloom.flows.benchmark.config import BenchmarkConfig
from normloom.flows.benchmark.leaderboard import sections
from normloom.readers import locate
from normloom.settings.faces.about import About
from normloom.settings.system import System
from normloom.tasks.benchmark.detect import detect, read, write
from normloom.tasks.benchmark.evaluation_figures import evaluate_detectors, evaluate_responders
from normloom.tasks.benchmark.group_labels import (
    follow_groups,
    group_labels,
    label_figures,
    labelled_items,
    read_labels,
)
from normloom.tasks.benchmark.ingest_dataset import dataset_columns, ingest_dataset, items
from normloom.tasks.benchmark.item_results import detector_results, responder_results
from normloom.tasks.benchmark.leaderboard import DETECTOR, RESPONDER, leaderboard
from normloom.tasks.benchmark.respond import assess, questions, respond

NAME = "benchmark"


def benchmark(config: BenchmarkConfig, dataset: Stage | None = None) -> list[Stage]:
    """Return the last stages of the build, the leaderboard; `dataset` is the published table that is evaluated."""
    if config.by_group:
        return _by_group(config, dataset)
    models, source, own = config.models, config.published, None
    if dataset is None or source is None:
        responses = config.responses
        reading = responses.reading(splits_by_column=True) if config.source.path else None
        located = locate(responses.path or "", reading)
        dataset = ingest_dataset(responses, source=located, taxonomies=config.labels)
        own = dataset_columns(dataset, located, responses)
        source = Path(config.source.path).name if config.source.path else "built-in"
    rows = items(dataset, source=source, split=config.source.split, limit=config.source.limit)

    figures, results = [], []
    if DETECTOR in config.modes:
        detected = [_detected(rows, config, name) for name in models]
        figures.append(evaluate_detectors(detected, threshold=config.threshold))
        results.append(detector_results(detected, rows, dataset, *([own] if own else [])))
    if RESPONDER in config.modes:
        asked = questions(rows)
        drawn = {name: respond(asked, config.responder, model, entrant=name) for name, model in models.items()}
        assessed = [
            assess(answers, config.judge, model, entrant=name, judge=judge)
            for judge, model in config.judges.items()
            for name, answers in drawn.items()
        ]
        figures.append(evaluate_responders(assessed, threshold=config.threshold))
        sides = [*([own] if own else []), *drawn.values()]
        results.append(responder_results(assessed, rows, dataset, *sides, own=own is not None))
    ranked = leaderboard(figures, rows, entrants=config.entrants, source=source, protocols=config.protocols)
    return [ranked, *results]


def _by_group(config: BenchmarkConfig, published: Stage | None) -> list[Stage]:
    """Return the last stages for items that groups of people labelled: whose judgement do the models follow?"""
    source = config.published if published else config.source.path
    if source is None:
        raise ConfigError(
            f"source.system: {config.source.system} has no release in this store; build it first, or name a file "
            "as source.path with source.labelled=true"
        )
    given = published or read_labels(
        config.groups, source=locate(str(source), config.source.reading(splits_by_column=True))
    )
    rows = labelled_items(given, config.groups, limit=config.source.limit)
    labels = group_labels(given, config.groups)
    detected = [_detected(rows, config, name) for name in config.models]
    figures = [evaluate_detectors(detected, threshold=config.threshold)]
    name = source if published else Path(source).name
    return [
        leaderboard(figures, rows, entrants=config.entrants, source=name, protocols=config.protocols),
        follow_groups(detected, labels, reference=config.groups.reference, threshold=config.threshold),
        label_figures(given, config.groups, labels),
        detector_results(detected, rows, rows),
    ]


def _detected(rows: Stage, config: BenchmarkConfig, name: str) -> Stage:
    """Return the stage of one detector's verdicts, scored or written."""
    model = config.models[name]
    if config.detector.verdict == "scored":
        return detect(rows, config.detector, model, entrant=name)
    return read(rows, write(rows, config.detector, model, entrant=name), entrant=name)


def reads(config: BenchmarkConfig) -> dict[str, str]:
    """Return the published table that the benchmark starts from."""
    return {"dataset": config.published} if config.published else {}


BENCHMARK = System(
    name=NAME,
    title="Benchmark of models",
    config=BenchmarkConfig,
    flow=benchmark,
    reads=reads,
    sections=sections,
    about=About.of(NAME),
)
