"""PersoDPO: preference pairs for persona dialogue from automatic signals, and DPO on them (arXiv 2602.04493).

Replies of several models to one prompt are scored by five signals; those of high quality are preferred to those of
low. The pairs of SaVaCu and MisAlignTrade, whose responses are aligned and misaligned, can stand in their place.
"""

from __future__ import annotations

from collections.abc import Mapping

from normloom.core.errors import ConfigError
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Stage
from normloom.flows.persodpo import summary
from normloom.flows.persodpo.config import PersodpoConfig
from normloom.flows.persodpo.training import trained
from normloom.flows.savacu.decontamination import decontaminated
from normloom.readers import holding, locate
from normloom.schemas.training.preference_tables import MEASURED, VALID
from normloom.settings.faces.about import About
from normloom.settings.system import System
from normloom.tasks.preferences.checks import check_evaluation, check_pairs, check_replies
from normloom.tasks.preferences.evaluation import COLUMNS, evaluated, evaluation_figures, read_evaluated
from normloom.tasks.preferences.judge_entailment import JUDGED, judge_entailment
from normloom.tasks.preferences.measure import measure
from normloom.tasks.preferences.pair_figures import pair_figures, reply_figures
from normloom.tasks.preferences.pairs import PairArgs, published_pairs, quality_pairs, simple_pairs
from normloom.tasks.preferences.parse import parse
from normloom.tasks.preferences.prompts import read_prompts
from normloom.tasks.preferences.quality import length, quality, ranges
from normloom.tasks.preferences.release import release_pairs
from normloom.tasks.preferences.replies import REPLY, read_replies, released_signals, reply
from normloom.tasks.preferences.shortcuts import shortcuts

PUBLISHED = "published"


def persodpo(config: PersodpoConfig, published: Stage | None = None) -> list[Stage]:
    """Return the last stages of the build, the released pairs first; `published` is what they are made of if given."""
    also: list[Stage] = []
    prompts = read_prompts(config.source, source=config.source.located_prompts)
    if config.source.published:
        made = [_published(config, published)]
    else:
        made, also = _scored(prompts, config)
    clean = decontaminated(made, config.decontaminate, columns=("messages", "chosen", "rejected"))
    made = clean.tables
    simple = made[1] if len(made) > 1 and config.baseline else None
    training = trained(made[0], simple, config)
    also += training.ends
    also += _evaluated(prompts, {**training.policies, **config.models.policies}, config)
    return [release_pairs(made[0]), *also, pair_figures(made), shortcuts(made), check_pairs(made), *clean.ends]


def _scored(prompts: Stage, config: PersodpoConfig) -> tuple[list[Stage], list[Stage]]:
    """Return the pairs by quality and those of the simple baseline, and what is measured on the way."""
    source, rules = config.source, config.quality
    parsed = parse(_replies(prompts, config))
    if config.signals.by == "released":
        signals = [released_signals(parsed, source=holding(source.located(), ("gen_id", *MEASURED)))]
    else:
        signals = _measured(parsed, prompts, config)
    measured = [*signals, length(parsed, rules)]
    found = ranges(measured, rules, parsed)
    scored = quality(parsed, rules, found, *measured)
    asked = PairArgs(**dict(config.pairs), template=config.reply.template, context_turns=config.reply.context_turns)
    made = [make(scored, asked, parsed, prompts) for make in (quality_pairs, simple_pairs)]
    return made, [reply_figures(parsed, config.pairs, scored), check_replies(parsed, scored, found)]


def _evaluated(prompts: Stage, policies: Mapping[str, ModelSpec], config: PersodpoConfig) -> list[Stage]:
    """Return figures and checks of policies on the validation prompts: those of a file, and those named here."""
    source, answered = config.source, []
    if source.validation:
        answered.append(read_evaluated(prompts, source=holding(locate(source.validation), COLUMNS)))
    if policies:
        replies = [
            reply(prompts, config.evaluate, model, generator=name, split=VALID, name=f"answer_{name}")
            for name, model in policies.items()
        ]
        parsed = parse(replies, name="parsed_answers")
        answered.append(evaluated(parsed, *_measured(parsed, prompts, config, of="answers")))
    return [evaluation_figures(answered), check_evaluation(answered)] if answered else []


def _measured(parsed: Stage, prompts: Stage, config: PersodpoConfig, *, of: str = "") -> list[Stage]:
    """Return the signals by the models of the profile: entailment by a judge if there is one."""
    after = f"_of_{of}" if of else ""
    encoder, judge = config.models.encoder, config.models.nli
    names = tuple(name for name in MEASURED if judge is None or name not in JUDGED)
    signals = [
        measure(parsed, config.signals, prompts, encoder, encoder=encoder.model, names=names, name=f"signals{after}")
    ]
    if judge:
        signals.append(
            judge_entailment(
                parsed, config.entailment, prompts, judge, judge=judge.model, name=f"judged_signals{after}"
            )
        )
    return signals


def _replies(prompts: Stage, config: PersodpoConfig) -> list[Stage]:
    if config.source.holds == "replies":
        source = holding(config.source.located(), REPLY)
        return [read_replies(prompts, source=source, limited=config.source.limit is not None)]
    models = config.models.generators
    return [reply(prompts, config.reply, model, generator=name) for name, model in models.items()]


def _published(config: PersodpoConfig, published: Stage | None) -> Stage:
    if published is None:
        system = str(config.source.published).partition("/")[0]
        raise ConfigError(
            f"source.published: {config.source.published} is not in this store; build it first: normloom build {system}"
        )
    return published_pairs(published, config.pairs, limit=config.source.limit)


def reads(config: PersodpoConfig) -> dict[str, str]:
    """Return the released table that the build starts from, if it does."""
    return {PUBLISHED: config.source.published} if config.source.published else {}


PERSODPO = System(
    name="persodpo",
    title="PersoDPO",
    config=PersodpoConfig,
    flow=persodpo,
    reads=reads,
    sections=summary.sections,
    about=About.of("persodpo"),
)
