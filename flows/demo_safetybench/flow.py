"""Demo-SafetyBench: conversations rated for safety by a panel of models, each speaking for people of a group.

The pipeline of arXiv 2602.07376 on DICES: label conversations in safety domains, expand domains that are sparse within
a demographic group, remove near-duplicates within groups, rate, and measure models and people alike.
"""

from __future__ import annotations

from normloom.core.stage import Stage
from normloom.flows.demo_safetybench.config import DemoSafetybenchConfig
from normloom.flows.savacu.config import sparse_below
from normloom.flows.savacu.decontamination import decontaminated
from normloom.flows.savacu.distinct import distinct
from normloom.flows.savacu.labelling import label
from normloom.readers import locate
from normloom.schemas.people import demo_tables
from normloom.settings.faces.about import About
from normloom.settings.system import System
from normloom.tasks.duplicates.sweep import sweep_delta, sweep_tau
from normloom.tasks.panel.conversations import conversations
from normloom.tasks.panel.dices_columns import rating_columns
from normloom.tasks.panel.group_gaps import expand_groups, find_sparse_in_groups, group_coverage
from normloom.tasks.panel.human_figures import human_figures
from normloom.tasks.panel.ingest_dices import ingest_dices
from normloom.tasks.panel.panel import find_panel_requests, join_panel, release
from normloom.tasks.panel.rate import rate
from normloom.tasks.panel.rater_figures import rater_figures
from normloom.tasks.prompts.asked import asked


def demo_safetybench(config: DemoSafetybenchConfig) -> list[Stage]:
    """Return the last stages of the build, the released table first."""
    raters, settings, models = config.models.raters, config.deduplicate, config.models
    source, names = config.ratings, tuple(raters)
    located, items = source.located(), locate(source.items) if source.items else None

    ratings = ingest_dices(source, source=located, items=items)
    labelled = label(conversations(ratings), config, carried=demo_tables.CARRIED)
    requests = find_panel_requests(ratings, labelled, raters=len(raters))
    minimum = sparse_below(config.expand, config.source)
    gaps = find_sparse_in_groups(requests, config.expand, taxonomies=config.labels, minimum=minimum)
    drafted = expand_groups(
        gaps,
        config.expand,
        requests,
        models.expander,
        taxonomies=config.labels,
        tau=settings.tau,
        features=settings.features,
    )
    unique = distinct([requests, drafted], settings, models.embedder, within="group", contract=demo_tables.UNIQUE)

    columns = tuple(name for name in demo_tables.ASKED.columns if name != "prompt_id")
    persons = asked(unique, columns=columns, contract=demo_tables.ASKED)
    rates = [rate(persons, config.rate, model, rater=name) for name, model in raters.items()]
    rated = join_panel(rates, unique, raters=names)

    own = rating_columns(ratings, located, items, keep=source.keep)
    released = release(ratings, labelled, unique, rated, own)
    clean = decontaminated([released], config.decontaminate, columns=("context", "response"), released=True)
    return [
        *clean.tables,
        group_coverage(gaps, unique),
        rater_figures(rated, unique, raters=names, threshold=config.threshold),
        human_figures(ratings, requests, threshold=config.threshold),
        sweep_delta(labelled, taxonomies=config.labels),
        sweep_tau(
            [requests, drafted],
            jaccard=settings.jaccard,
            alike=settings.alike,
            features=settings.features,
            within="group",
        ),
        *clean.ends,
    ]


DEMO_SAFETYBENCH = System(
    name="demo_safetybench",
    title="Demo-SafetyBench",
    config=DemoSafetybenchConfig,
    flow=demo_safetybench,
    about=About.of("demo_safetybench"),
)
