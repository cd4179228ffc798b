"""Probes of hosted models, before a build starts rather than when their stage runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence

from normloom.core.content import Medium
from normloom.core.errors import ConfigError, ModelError
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Stage
from normloom.models.openai.memory import ENGINE
from normloom.models.openai.options import Options
from normloom.models.registry import parse_options
from normloom.steps.graph import stages_of, with_models
from normloom.workers.resources import Resources


def probed(
    ends: Sequence[Stage], *, stages: Collection[str], resources: Resources, say: Callable[[str], None]
) -> list[Stage]:
    """Return the flow with the scoring method of its endpoints decided; sends each model one or two requests.

    `say` gets the findings. Raises ConfigError for a missing or rejected key, a wrong model or address, or an
    unsupported field; ModelError if an endpoint does not answer now.
    """
    decided: dict[str, ModelSpec] = {}
    media: dict[str, set[type[Medium]]] = {}
    for stage in stages_of(*ends):
        if stage.model:
            media.setdefault(stage.model.model_dump_json(), set()).update(stage.media)
    for stage in stages_of(*ends):
        spec = stage.model
        if spec is None or spec.engine != ENGINE or stage.name not in stages or spec.model_dump_json() in decided:
            continue
        name = spec.model_dump_json()
        decided[name] = _decided(spec, resources, say, media=media[name])
    return with_models(ends, lambda spec: decided.get(spec.model_dump_json(), spec))


def _decided(
    spec: ModelSpec, resources: Resources, say: Callable[[str], None], *, media: Iterable[type[Medium]]
) -> ModelSpec:
    variable = parse_options(Options, spec).key_variable
    if resources.address and variable and not os.environ.get(variable):
        say(f"{spec.model} is not tried beforehand: {variable} is not set here; the cluster's nodes try it")
        return spec
    from normloom.models.openai.probe import probe
    from normloom.models.openai.replies.failures import SpentError

    try:
        found = probe(spec, media=media)
    except SpentError as error:
        raise ModelError(f"model {spec.model!r} was tried before the build started: {error}; try again later") from None
    except ModelError as error:
        raise ConfigError(str(error)) from error
    say(str(found))
    return found.spec
