"""AlignX: an expert for each aim, a router that weighs them, and calibrators of its weights (arXiv 2602.07381).

Prompts that ask for help, that could do harm and that tempt to falsehood each have an expert: a LoRA adapter tuned on
good replies. A router reads the state of a prompt and says which expert it is for; temperatures fitted on development
rows make what it says mean what it says. Base, experts, their sums and the routed mixes answer the same prompts.
"""

from __future__ import annotations

from normloom.core.stage import Stage
from normloom.flows.alignx.axes import axis_stage
from normloom.flows.alignx.config import AlignxConfig
from normloom.flows.alignx.experts import answered, checks, systems, tuned
from normloom.flows.alignx.judges import recorded, trade_offs
from normloom.flows.persodpo import summary
from normloom.settings.faces.about import About
from normloom.settings.system import System
from normloom.steps.products import files_of
from normloom.tasks.alignx.calibrate import calibrate, calibrators
from normloom.tasks.alignx.checks import check_routing
from normloom.tasks.alignx.inject import inject
from normloom.tasks.alignx.probe import probe_figures
from normloom.tasks.alignx.router import router, weigh
from normloom.tasks.alignx.states import task_vectors
from normloom.tasks.media.encode import encode_texts
from normloom.tasks.tradeoff.axis_figures import axis_figures
from normloom.tasks.tradeoff.calibration import calibration_figures, reliability

PUBLISHED = "published"


def alignx(config: AlignxConfig, published: Stage | None = None) -> list[Stage]:
    """Return the last stages of the build, the routing first; `published` is what the rows are made of if given."""
    rows = axis_stage(config.source, config.source, published)
    injected = inject(rows, config.inject, axes=config.names)
    encoder = config.models.encoder
    states = encode_texts(injected, config.encode, encoder, column="prompt", encoder=encoder.model, name="states")
    trained = router(rows, config.router, states, task_vectors(injected, states))
    weighed = weigh(rows, states, router=files_of(trained))
    fitted = calibrators(weighed, config.calibrate, states)
    told = calibrate(weighed, states, calibrators=files_of(fitted))
    probe = probe_figures(rows, config.probe, states)
    ends = [
        told,
        probe,
        calibration_figures(told, fitted),
        reliability(told),
        check_routing(injected, states, probe, trained, weighed, fitted),
    ]
    policy = config.policy
    if policy is None:
        known = recorded(config)
        return [*ends, axis_figures(known)] if known else ends
    experts = tuned(injected, rows, policy, config)
    replies = answered(rows, systems(experts, trained, fitted, policy, config), config)
    return [*ends, *trade_offs(replies, rows, config), checks(experts, replies)]


def reads(config: AlignxConfig) -> dict[str, str]:
    """Return the released table that the build starts from, if it does."""
    return {PUBLISHED: config.source.table} if config.source.table else {}


ALIGNX = System(
    name="alignx",
    title="AlignX",
    config=AlignxConfig,
    flow=alignx,
    reads=reads,
    sections=summary.checks,
    about=About.of("alignx"),
)
