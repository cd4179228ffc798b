"""One yes/no question about many texts."""

from __future__ import annotations

import math
from collections.abc import Iterable

import polars as pl

from normloom.errors import ModelError
from normloom.models.protocol import LanguageModel, ScoreRequest


def yes(model: LanguageModel, question: str, texts: Iterable[str]) -> pl.Series:
    """Return P(Yes) / (P(Yes) + P(No)) of a question about each text, Float64.

    Raises ModelError for a text that the model cannot read: the runner then finds that row and quarantines it alone.
    """
    requests = [
        ScoreRequest(instruction="", context=text, questions=(f"{question} Answer Yes or No.",), answers=("Yes", "No"))
        for text in texts
    ]
    shares = []
    for scores in model.score(requests):
        if scores.error is not None:
            raise ModelError(scores.error)
        [(agree, deny)] = scores.logprobs
        shares.append(1 / (1 + math.exp(min(deny - agree, 700.0))))
    return pl.Series("yes", shares, dtype=pl.Float64)
