"""Demo-SafetyBench: conversations rated for safety by a panel of models, each speaking for people of a group.

The pipeline of arXiv 2602.07376 on DICES: label conversations in safety domains, expand domains that are sparse within
a demographic group, remove near-duplicates within groups, rate, and measure models and people alike.
"""

from __future__ import annotations

from normloom.flows.demo_safetybench_config import DemoSafetybenchConfig
from normloom.flows.labelling import label
from normloom.flows.system import System
from normloom.schemas import demo_tables
from normloom.stage import Stage
from normloom.tasks.asked import asked
from normloom.tasks.conversations import conversations
from normloom.tasks.deduplicate import deduplicate
from normloom.tasks.dices_columns import rating_columns
from normloom.tasks.group_gaps import expand_groups, find_sparse_in_groups, group_coverage
from normloom.tasks.human_figures import HumanMeasuring, human_figures
from normloom.tasks.ingest_dices import ingest_dices
from normloom.tasks.panel import Panel, Paneling, find_panel_requests, join_panel, release
from normloom.tasks.rate import rate
from normloom.tasks.rater_figures import RaterMeasuring, rater_figures
from normloom.tasks.sweep import DeltaSweep, TauSweep, sweep_delta, sweep_tau


def demo_safetybench(config: DemoSafetybenchConfig) -> list[Stage]:
    """Return the last stages of the build, the released table first."""
    raters, settings = config.models.raters, config.deduplicate

    ratings = ingest_dices(config.ingestion)
    labelled = label(conversations(ratings), config, carried=demo_tables.CARRIED)
    requests = find_panel_requests(ratings, labelled, arguments=Paneling(raters=len(raters)))
    gaps = find_sparse_in_groups(requests, arguments=config.gap_search)
    drafted = expand_groups(
        gaps, requests, arguments=config.expansion, model=config.models.expander, part_rows=config.expand.part_rows
    )
    unique = deduplicate([requests, drafted], arguments=config.deduplication, contract=demo_tables.UNIQUE)

    persons = asked(unique, contract=demo_tables.ASKED)
    rates = [
        rate(persons, arguments=config.rating(name), model=model, part_rows=config.rate.part_rows)
        for name, model in raters.items()
    ]
    rated = join_panel(rates, unique, arguments=Panel(raters=tuple(raters)))

    own = rating_columns(ratings, config.ingestion, keep=config.source.keep if config.source.path else ())
    taus = TauSweep(jaccard=settings.jaccard, features=settings.features, within="group")
    return [
        release(ratings, labelled, unique, rated, own=own),
        group_coverage(gaps, unique),
        rater_figures(rated, unique, arguments=RaterMeasuring(raters=tuple(raters), threshold=config.threshold)),
        human_figures(ratings, requests, arguments=HumanMeasuring(threshold=config.threshold)),
        sweep_delta(labelled, arguments=DeltaSweep(taxonomies=config.labels)),
        sweep_tau([requests, drafted], arguments=taus),
    ]


DEMO_SAFETYBENCH = System(
    name="demo_safetybench", title="Demo-SafetyBench", config=DemoSafetybenchConfig, flow=demo_safetybench
)
