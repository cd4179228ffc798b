"""Models, taxonomies and parts small enough to calculate by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from normloom.core.contract import Contract
from normloom.core.models.protocol import Candidate, Completion, GenerateRequest, ScoreRequest, Scores
from normloom.core.rows.blocks import Blocks
from normloom.core.stage import Output, Stage
from normloom.readers import ReadOptions, locate
from normloom.schemas import tables
from normloom.schemas.taxonomy import Label, Taxonomy
from normloom.tasks.prompts.ingest import Prompts, ingest
from normloom.workers.parts.job import PartJob
from normloom.workers.parts.part import make_rows


def taxonomy(dimension: str, *names: str) -> Taxonomy:
    labels = [
        Label(id=f"{dimension}/{name.lower()}", name=name, group="all", definition=f"On {name}.") for name in names
    ]
    return Taxonomy(dimension=dimension, labels=tuple(labels))


SAFETY = taxonomy("safety", "Theft", "Drugs", "Fraud")
VALUE = taxonomy("value", "Wealth", "Wisdom")
TAXONOMIES = (SAFETY, VALUE)


def _unread(*tables: object) -> Output:
    raise NotImplementedError  # the stage only stands upstream


ANY = Stage(name="any", function=_unread, arguments=SAFETY, contract=Contract(columns={}))
LABEL_IDS = [label.id for each in TAXONOMIES for label in each.labels]


class Answerer:
    """A model that gives the answers of a question the probabilities that `shares` returns for context and question."""

    def __init__(self, shares: Callable[[str, str], Sequence[float]], *, too_long: str | None = None) -> None:
        self.shares = shares
        self.too_long = too_long
        self.requests: list[ScoreRequest] = []

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scores]:
        self.requests += requests
        return [self._scores(request) for request in requests]

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        raise NotImplementedError

    def _scores(self, request: ScoreRequest) -> Scores:
        assert isinstance(request.context, str)
        if self.too_long is not None and self.too_long in request.context:
            return Scores(logprobs=(), tokens_in=1, error="the context does not fit")
        lines = [self.shares(request.context, question) for question in request.questions]
        return Scores(logprobs=tuple(tuple(math.log(share) for share in line) for line in lines), tokens_in=10)


class Writer:
    """A model that writes the given texts one after another, over all requests, and then only `last`."""

    def __init__(self, *texts: str, last: str = "", too_long: str | None = None) -> None:
        self.texts = list(texts)
        self.last = last
        self.too_long = too_long
        self.requests: list[GenerateRequest] = []

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scores]:
        raise NotImplementedError

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        self.requests += requests
        return [self._completion(request) for request in requests]

    def _completion(self, request: GenerateRequest) -> Completion:
        if self.too_long is not None and self.too_long in request.prompt:
            return Completion(candidates=(), tokens_in=1, error="the prompt does not fit")
        texts = [self.texts.pop(0) if self.texts else self.last for _ in request.seeds]
        candidates = [
            Candidate(text=text, seed=seed, finish="stop", tokens_out=len(text.split()))
            for text, seed in zip(texts, request.seeds, strict=True)
        ]
        return Completion(candidates=tuple(candidates), tokens_in=10)


class Forgetful(Writer):
    """A model that loses the last candidate of each request."""

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        return [replace(done, candidates=done.candidates[:-1]) for done in super().generate(requests)]


class WordEmbedder:
    """An embedder with one dimension for each of its words and one for all that holds none of them."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        counts = np.array([[text.lower().count(word) for word in self.words] for text in texts], dtype=np.float32)
        vectors = np.hstack([counts, (counts.sum(axis=1, keepdims=True) == 0).astype(np.float32)])
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def carry_out(
    stage: Stage, rows: pl.DataFrame | Blocks | None, *sides: pl.DataFrame, model: object | None = None
) -> Output:
    """Make the rows of a stage as one part, held to its contract and to the account of rows."""
    job = PartJob(
        system="hand",
        stage=stage.name,
        function=stage.function,
        arguments=stage.arguments,
        values=stage.values,
        fan_out=stage.fan_out,
        contract=stage.contract,
        directory=Path(),
        writer="hand",
        index=0,
        start=0,
        stop=0 if rows is None else rows.height,
        inputs=None if rows is None else (),
        sides=(),
    )
    return make_rows(job, [pl.DataFrame() if rows is None else rows, *sides], model)


def ask_and_decide(asking: Stage, deciding: Stage, rows: pl.DataFrame, *, model: object) -> Output:
    """Make what a model says of rows, and of that the decision; quarantine and tokens are those of asking.

    Each row must have come from its own scores.
    """
    said = carry_out(asking, rows, model=model)
    made = carry_out(deciding, rows, said.rows)
    ids = dict(said.rows.select("row_id", said.rows.columns[2]).iter_rows())
    through = [[ids[score] for score in parents] for parents in made.rows["parents"]]
    assert made.rows.height == said.rows.height
    return replace(
        made,
        rows=made.rows.with_columns(parents=pl.Series(through, dtype=tables.TEXTS)),
        quarantined=said.quarantined,
        tokens_in=said.tokens_in,
    )


def unique(**prompts: list[str]) -> pl.DataFrame:
    """Labelled prompts whose id is their text, with the dimensions of their labels."""
    rows = [
        {
            "row_id": prompt,
            "history": None,
            "prompt": f"{prompt}?",
            "labels": [{"dimension": name, "label": f"{name}/x", "probability": 1.0} for name in dimensions],
        }
        for prompt, dimensions in prompts.items()
    ]
    schema: dict[str, Any] = {
        "row_id": pl.String,
        "history": tables.MESSAGES,
        "prompt": pl.String,
        "labels": tables.LABELS,
    }
    return pl.DataFrame(rows, schema=schema)


# Options of the command line under which every model is scripted and held by the build itself.
_MODELS = (
    "models={embedder: {engine: scripted, model: e}, classifier: {engine: scripted, model: m}, "
    "expander: {engine: scripted, model: m}, judge: {engine: scripted, model: j}, "
    "generators: {g1: {engine: scripted, model: m}, g2: {engine: scripted, model: n}}}"
)
SCRIPTED_COMMAND = ("--set", _MODELS, "--set", "resources.actors=0")


def ingested(path: Path | str, reading: ReadOptions | None = None, **settings: object) -> Stage:
    """Return the stage that reads prompts, labelled by the small taxonomies if no others are given."""
    taxonomies = settings.pop("taxonomies", TAXONOMIES)
    return ingest(Prompts(**{"keep": (), **settings}), source=locate(path, reading), taxonomies=taxonomies)
