"""The second half of PersoDPO: a policy trained on the pairs, and on those of the simple baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from normloom.core.models.needs import Needs
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Stage
from normloom.flows.persodpo.config import PersodpoConfig
from normloom.schemas.training.preference_tables import HELD_OUT
from normloom.steps.products import files_of, with_adapter
from normloom.tasks.preferences.checks import check_training
from normloom.tasks.preferences.dpo.dpo_figures import dpo_figures
from normloom.tasks.preferences.dpo.log_probs import log_probs
from normloom.tasks.preferences.dpo.train_dpo import train_dpo

BASE, TUNED, SIMPLE = "base", "persodpo", "simple"


@dataclass(frozen=True)
class Policies:
    """The policies by name, the untrained one first, and the stages that say how training went."""

    policies: Mapping[str, ModelSpec]
    ends: tuple[Stage, ...] = ()


def trained(pairs: Stage, simple: Stage | None, config: PersodpoConfig) -> Policies:
    """Return the policies trained on the pairs and on the simple ones; none if the settings name no policy.

    What the untrained policy makes of each pair is read once: it is the reference of both, and of their evaluation.
    """
    policy = config.policy
    if policy is None:
        return Policies({})
    needs = Needs(gpus=policy.gpus or 0, threads=policy.threads or 1)
    made = [pairs, simple] if simple else [pairs]
    read = policy.model_copy(update={"gpus": 1}) if (policy.gpus or 0) > 1 else policy  # its engine takes one
    reference = log_probs(made, config.log_probs, read, policy=BASE)

    def train(rows: Stage, name: str) -> Stage:
        return replace(train_dpo(rows, config.train, reference, policy=policy, name=name), needs=needs)

    runs = {TUNED: train(pairs, "train")}
    if simple:
        runs[SIMPLE] = train(simple, "train_simple")
    tuned = {name: with_adapter(read, run) for name, run in runs.items()}
    held_out = [log_probs(pairs, config.log_probs, model, policy=name, split=HELD_OUT) for name, model in tuned.items()]
    files = {name: files_of(run) for name, run in runs.items()}
    ends = (
        dpo_figures(held_out, reference, beta=config.train.beta),
        check_training(runs[TUNED], runs.get(SIMPLE), adapter=files[TUNED], other=files.get(SIMPLE)),
    )
    return Policies({BASE: read, **tuned}, ends)
