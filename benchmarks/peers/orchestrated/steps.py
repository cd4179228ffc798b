"""The five steps: plain functions over data frames that answer at once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl

from orchestrated.journal import counted
from orchestrated.scores import score

LABELS = 14
CANDIDATES = 4
POISON = "poison"


def read(path: Path) -> pl.DataFrame:
    """Return the prompts."""
    return pl.read_parquet(path)


def classify(prompts: pl.DataFrame) -> pl.DataFrame:
    """Give each prompt a label."""
    labels = [f"label_{_digest(text) % LABELS}" for text in counted("classify", prompts["prompt"])]
    return prompts.with_columns(pl.Series("label", labels, dtype=pl.String))


def generate(labelled: pl.DataFrame) -> pl.DataFrame:
    """Write four candidates for each prompt; a poisoned prompt raises."""
    responses = [_answers(text) for text in counted("generate", labelled["prompt"])]
    return labelled.with_columns(pl.Series("response", responses, dtype=pl.List(pl.String))).explode("response")


def judge(candidates: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """Score each candidate and say whether it is accepted."""
    scores = [score(text) for text in counted("judge", candidates["response"])]
    judged = candidates.with_columns(pl.Series("score", scores, dtype=pl.Float64))
    return judged.with_columns(accepted=pl.col("score") >= threshold)


def select(judged: pl.DataFrame) -> pl.DataFrame:
    """Return the best accepted candidate of each prompt."""
    best: dict[str, tuple[float, int]] = {}
    columns = judged["prompt"], judged["score"], judged["accepted"]
    for place, (prompt, score_, accepted) in enumerate(counted("select", zip(*columns, strict=True))):
        if accepted and score_ > best.get(prompt, (-1.0, 0))[0]:
            best[prompt] = score_, place
    return judged[sorted(place for _, place in best.values())]


def _answers(text: str) -> list[str]:
    if POISON in text:
        raise ValueError(f"the model cannot answer {text!r}")
    return [f"{text} / answer {_digest(text, number):016x}" for number in range(CANDIDATES)]


def _digest(text: str, number: int = 0) -> int:
    return int.from_bytes(hashlib.blake2b(f"{number} {text}".encode(), digest_size=8).digest(), "big")
