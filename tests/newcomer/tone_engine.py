"""An engine of one's own: it says Yes of every text with a please in it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from normloom.core.models.protocol import ModelSpec, ScoreRequest, Scores
from normloom.models.registry import Engine


class Please:
    def __init__(self, spec: ModelSpec, *, threads: int | None = None) -> None:  # noqa: ARG002  # every engine is given it
        self.name = spec.model

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scores]:
        return [self._scores(request) for request in requests]

    def _scores(self, request: ScoreRequest) -> Scores:
        assert isinstance(request.context, str)
        yes = 0.9 if "please" in request.context.lower() else 0.1
        logprobs = tuple(math.log(yes if answer == "Yes" else 1 - yes) for answer in request.answers)
        return Scores(logprobs=(logprobs,) * len(request.questions), tokens_in=len(request.context.split()))


PLEASE = Engine(module="tone_engine", attribute="Please", version=1, files=False)
