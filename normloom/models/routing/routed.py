"""A loaded base model that serves each request by the adapters that a router gives it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from normloom.core.content import text_of
from normloom.core.errors import ModelError
from normloom.core.machine.object_path import fetched
from normloom.core.models.protocol import (
    Adaptable,
    Completion,
    Embedder,
    GenerateRequest,
    LanguageModel,
    Metered,
    Mixable,
    ModelSpec,
    ScoreRequest,
    Scores,
)
from normloom.core.models.routed_model import RoutedSpec
from normloom.models.routing.calibrators import Calibrators, tempered
from normloom.models.routing.router import Router, judged, load_router

_Answer = TypeVar("_Answer", Completion, Scores)


@dataclass(frozen=True)
class Guide:
    """What gives requests their weights; `encoder` is None if the base makes the states."""

    router: Router
    names: tuple[str, ...]
    calibrators: Calibrators | None
    local: bool
    encoder: Embedder | None

    def weights(self, states: np.ndarray) -> np.ndarray:
        """Return the weights of the adapters in the order of `names`, float64 (states, adapters); they add up to 1."""
        log_probs, _ = judged(self.router, states)
        if self.calibrators is None:
            return tempered(log_probs, 1.0)
        temperature = self.calibrators.local(states) if self.local else self.calibrators.temperature
        return tempered(log_probs, temperature)


class RoutedModel:
    """A `LanguageModel` over a loaded base: the router reads the prompt of each request and weighs the adapters.

    A base that mixes adapters by request (`Mixable`) does so; one that serves one adapter to a request (`Adaptable`)
    serves the likeliest. Raises ModelError for any other, and for a router that knows other adapters.
    """

    def __init__(self, base: object | None, spec: RoutedSpec) -> None:
        if not isinstance(base, LanguageModel) or not isinstance(base, Adaptable | Mixable):
            raise ModelError(f"model {spec.title!r}: a {type(base).__name__} serves no adapters")
        self._base: Any = base
        self._guide = _guide(
            _folder(spec.router),
            _folder(spec.calibrators) if spec.calibrators else None,
            spec.encoder.model_dump_json() if spec.encoder else None,
            local=spec.local,
        )
        if set(self._guide.names) != set(spec.experts):
            known, given = ", ".join(self._guide.names), ", ".join(spec.experts)
            raise ModelError(f"model {spec.title!r}: its router knows the experts {known}; given are {given}")
        self._folders = [Path(fetched(str(spec.experts[name].folder))) for name in self._guide.names]

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scores]:
        """Return the log-probabilities of each request's answers, in the order of the requests."""
        return self._asked(requests, [text_of(request.context) for request in requests], lambda model: model.score)

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """Return each request's candidates in the order of its seeds, in the order of the requests."""
        return self._asked(requests, [text_of(request.prompt) for request in requests], lambda model: model.generate)

    def weights(self, texts: Sequence[str]) -> np.ndarray:
        """Return the weights of the adapters for texts, float64 (texts, adapters)."""
        encoder = self._guide.encoder or self._base
        if not isinstance(encoder, Embedder):
            raise ModelError(f"a {type(encoder).__name__} makes no states for a router: name an encoder")
        return self._guide.weights(encoder.embed(list(texts)))

    def take_usage(self) -> dict[str, float]:
        """Return what the base counted since this was last asked."""
        return self._base.take_usage() if isinstance(self._base, Metered) else {}

    def _asked(
        self, requests: Sequence[Any], texts: Sequence[str], how: Callable[[Any], Callable[[Any], list[_Answer]]]
    ) -> list[_Answer]:
        if not requests:
            return []
        weights = self.weights(texts)
        if isinstance(self._base, Mixable):
            return how(self._base.mixed(self._folders, weights))(requests)
        chosen = weights.argmax(1)
        groups = {int(one): np.flatnonzero(chosen == one).tolist() for one in np.unique(chosen)}
        answers: list[Any] = [None] * len(requests)
        with ThreadPoolExecutor(
            len(groups)
        ) as threads:  # what engines with a queue are asked side by side is one batch
            asked = {
                one: threads.submit(
                    copy_context().run,
                    how(self._base.adapted(self._folders[one])),
                    [requests[at] for at in places],
                )
                for one, places in groups.items()
            }
            for one, places in groups.items():
                for at, answer in zip(places, asked[one].result(), strict=True):
                    answers[at] = answer
        return answers


def _folder(spec: Any) -> str:
    if spec.folder is None:
        raise ModelError(f"model out of {spec.product!r}: its product has not been built yet")
    return str(spec.folder)


@lru_cache(maxsize=2)
def _guide(router: str, calibrators: str | None, encoder: str | None, *, local: bool) -> Guide:
    """Return what routes, loaded once in a process."""
    from normloom.models import load_model

    network, names = load_router(Path(fetched(router)))
    loaded = load_model(ModelSpec.model_validate_json(encoder)) if encoder else None
    if loaded is not None and not isinstance(loaded, Embedder):
        raise ModelError(f"the encoder of a router makes no states: {type(loaded).__name__}")
    return Guide(network, names, Calibrators.load(Path(fetched(calibrators))) if calibrators else None, local, loaded)
