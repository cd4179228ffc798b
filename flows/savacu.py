"""SaVaCu: prompts labelled in safety, value and cultural domains, with aligned and misaligned responses.

The pipeline of Mis-Align Bench (arXiv 2602.11305): classify, expand sparse domains, deduplicate, then
two-stage rejection sampling (generate and judge; resample what is still missing, at most twice).
"""

from __future__ import annotations

from flows.savacu_config import SavacuConfig
from normloom.stage import Stage
from schemas import tables
from schemas.taxonomy import DIMENSIONS
from tasks.classify import calibrate, classify, classify_by_embedding, shortlist
from tasks.deduplicate import deduplicate
from tasks.expand import expand, find_sparse
from tasks.generate import generate
from tasks.ingest import ingest
from tasks.judge import judge
from tasks.measure import Measuring, agreement, coverage
from tasks.publish import Publication, publish
from tasks.resample import ShortfallSearch, diagnose, shortfall
from tasks.select import Selection, select
from tasks.split import split


def savacu(config: SavacuConfig) -> list[Stage]:
    """Return the last stages of the build, the released table first."""
    models, generators = config.models, config.models.generators

    prompts = ingest(config.ingestion)
    labelled = label(prompts, config)
    gaps = find_sparse(labelled, arguments=config.gap_search)
    drafted = expand(
        gaps, labelled, arguments=config.expansion, model=models.expander, part_rows=config.expand.part_rows
    )
    unique = deduplicate([labelled, drafted], arguments=config.deduplication, contract=tables.UNIQUE)

    judged: list[Stage] = []
    asked = unique
    for round in range(config.rounds + 1):
        if round > 0:
            missing = shortfall(unique, judged, arguments=ShortfallSearch(generators=tuple(generators)), round=round)
            asked = diagnose(
                missing, arguments=config.diagnosing, model=models.judge, round=round, part_rows=config.judge.part_rows
            )
        candidates = [
            generate(asked, arguments=config.generation(name, round), model=model, part_rows=config.generate.part_rows)
            for name, model in generators.items()
        ]
        judged.append(
            judge(
                candidates, arguments=config.judging, model=models.judge, round=round, part_rows=config.judge.part_rows
            )
        )

    selected = select(judged, arguments=Selection(pairs=config.pairs))
    parted = split([selected], arguments=config.splitting, contract=tables.SPLIT)
    released = publish(parted, unique, arguments=Publication(dimensions=DIMENSIONS), part_rows=10_000)

    ends = [released, coverage(unique, gaps, arguments=Measuring(taxonomies=config.labels))]
    if config.ingestion.references:
        ends.append(agreement(labelled, arguments=Measuring(taxonomies=config.labels)))
    return ends


def label(prompts: Stage, config: SavacuConfig) -> Stage:
    """Label prompts by the route that is configured."""
    models, part_rows = config.models, config.classify.part_rows
    if config.classify.route == "embedding":
        known = ingest(config.calibration_prompts, name="ingest_calibration")
        fitted = calibrate(known, arguments=config.labelling, model=models.embedder)
        return classify_by_embedding(
            prompts, fitted, arguments=config.labelling, model=models.embedder, part_rows=part_rows
        )
    if config.classify.route == "shortlist":
        ranker = models.classifier if config.classify.shortlist_by == "codes" else models.embedder
        prompts = shortlist(prompts, arguments=config.ranking, model=ranker, part_rows=part_rows)
    return classify(prompts, arguments=config.asking, model=models.classifier, part_rows=part_rows)
