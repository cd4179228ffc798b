"""One yes/no question about many texts."""

from __future__ import annotations

import math
from collections.abc import Iterable

import polars as pl

from normloom.core.models.protocol import LanguageModel, ScoreRequest


def yes(model: LanguageModel, question: str, texts: Iterable[str]) -> pl.Series:
    """Return P(Yes) / (P(Yes) + P(No)) of a question about each text, Float64.

    Raises ConnectionError if the model cannot be reached, and ValueError for a text that it cannot read: in a step with
    `part_rows` the runner finds that row and quarantines only it; in the first case, as a transient failure.
    """
    requests = [
        ScoreRequest(instruction="", context=text, questions=(f"{question} Answer Yes or No.",), answers=("Yes", "No"))
        for text in texts
    ]
    shares = []
    for scores in model.score(requests):
        if scores.error is not None:
            raise (ConnectionError if scores.transient else ValueError)(scores.error)
        [(agree, deny)] = scores.logprobs
        shares.append(1 / (1 + math.exp(min(deny - agree, 700.0))))
    return pl.Series("yes", shares, dtype=pl.Float64)
