"""The second half of AlignX: experts of a policy, and the systems that answer side by side."""

from __future__ import annotations

import re
from dataclasses import replace

from normloom.core.models.model_roles import RolesSpec
from normloom.core.models.needs import Needs
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Stage
from normloom.flows.alignx.config import AlignxConfig
from normloom.schemas.training.alignx_tables import BASE, CALIBRATED, EXPERT, MERGED, ROUTED_MIX, UNIFORM
from normloom.steps.products import files_of, routed, with_adapter
from normloom.tasks.alignx.answers import answer, asked
from normloom.tasks.alignx.checks import check_experts
from normloom.tasks.alignx.experts import tune_expert
from normloom.tasks.alignx.merge import merge


def tuned(injected: Stage, rows: Stage, policy: ModelSpec, config: AlignxConfig) -> dict[str, Stage]:
    """Return the stage that tunes the expert of each axis."""
    needs = Needs(gpus=policy.gpus or 0, threads=policy.threads or 1)
    return {
        axis: replace(
            tune_expert(injected, config.tune, rows, axis=axis, policy=policy, name=f"expert_{_slug(axis)}"),
            needs=needs,
        )
        for axis in sorted(config.names)
    }


def systems(
    experts: dict[str, Stage], router: Stage, calibrators: Stage, policy: ModelSpec, config: AlignxConfig
) -> dict[str, ModelSpec]:
    """Return the models that are compared, by the names that replies carry."""
    served, encoder = config.models.served or policy, config.models.encoder
    files = _files(experts)
    curves = list(experts.values())
    sums = {
        MERGED: merge(curves, experts=files, weight=config.merge.scale, name="merged"),
        UNIFORM: merge(curves, experts=files, weight=1 / len(experts), name="uniform"),
    }
    return {
        BASE: served,
        **{f"{EXPERT}{axis}": with_adapter(served, expert) for axis, expert in experts.items()},
        **{name: with_adapter(served, merged) for name, merged in sums.items()},
        ROUTED_MIX: routed(served, experts, router, encoder=encoder),
        CALIBRATED: routed(
            served, experts, router, encoder=encoder, calibrators=calibrators, local=config.calibrated_by == "local"
        ),
    }


def answered(rows: Stage, models: dict[str, ModelSpec], config: AlignxConfig) -> list[Stage]:
    """Return the replies of each system to the same test prompts."""
    prompts = asked(rows, config.answers)
    return [
        answer(prompts, config.answers, model, system=system, name=f"replies_{_slug(system)}")
        for system, model in models.items()
    ]


def checks(experts: dict[str, Stage], replies: list[Stage]) -> Stage:
    """Return the checks of experts and replies."""
    return check_experts(list(experts.values()), *replies, experts=_files(experts))


def _files(experts: dict[str, Stage]) -> RolesSpec:
    return RolesSpec.of({axis: files_of(expert) for axis, expert in experts.items()})


def _slug(name: str) -> str:
    return re.sub(r"\W+", "_", name.lower()).strip("_")
