"""Label prompts: the probability of each label, and the labels whose probability reaches delta.

Three routes. `exhaustive` asks a language model a yes/no question about every label; `shortlist` asks
about the best k only, ranked by the log-probability of a one-token code per label or by embedding;
`embedding` asks nothing: a regression from sentence vectors to labels, fitted on labelled prompts of our own
(tasks/calibration.py).

What a model says (probabilities, vectors) is the table of one stage; which labels are kept is decided in the next, so
that another delta asks no model.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from normloom.errors import ConfigError
from normloom.models.protocol import Embedder, LanguageModel, ModelSpec, ScoreRequest, Scores
from normloom.schemas import tables
from normloom.schemas.taxonomy import Label, Taxonomy
from normloom.schemas.template import Template
from normloom.stage import NoArguments, Output, Stage, quarantined_frame, unanswered
from normloom.tasks import bounds
from normloom.tasks.dialogue import transcripts

if TYPE_CHECKING:
    import numpy as np

YES_NO = ("Yes", "No")
_PART_ROWS = 16_384
CODES = string.ascii_uppercase + string.ascii_lowercase + string.digits


class Labels(BaseModel):
    """The labels there are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    taxonomies: tuple[Taxonomy, ...]


class Labelling(Labels):
    """The labels there are and the probability from which one is kept."""

    delta: float = Field(0.5, gt=0, lt=1)


class Asking(Labels):
    """How a language model is asked about a label."""

    template: Template


class Ranking(Labels):
    """How many labels of each dimension go on a shortlist, and the template that ranks them by code."""

    k: int = Field(8, ge=1)
    template: Template | None = None


def yes_probability(scores: Sequence[float]) -> float:
    """Return P(yes) / (P(yes) + P(no)) from the log-probabilities of the two answers."""
    yes, no = scores
    return 1 / (1 + math.exp(min(no - yes, 700.0)))


def ask_labels(rows: pl.DataFrame, arguments: Asking, model: LanguageModel) -> Output:
    """Return the probability of every label, or of those of the row's `shortlist` where it has one."""
    labels = [(taxonomy.dimension, label) for taxonomy in arguments.taxonomies for label in taxonomy.labels]
    asked = [
        [place for place, (_, label) in enumerate(labels) if "shortlist" not in row or label.id in row["shortlist"]]
        for row in rows.iter_rows(named=True)
    ]
    questions = [
        arguments.template.render("question", dimension=dimension, label=label.name, definition=label.definition)
        for dimension, label in labels
    ]
    requests = [
        ScoreRequest(
            instruction=arguments.template.render("instruction"),
            context=arguments.template.render("context", prompt=prompt),
            questions=tuple(questions[place] for place in places),
            answers=YES_NO,
        )
        for prompt, places in zip(transcripts(rows), asked, strict=True)
    ]
    scored = model.score(requests)
    values: list[list[float | None]] = []
    for places, scores in zip(asked, scored, strict=True):
        row: list[float | None] = [None] * len(labels)
        if scores.error is None:
            for place, pair in zip(places, scores.logprobs, strict=True):
                row[place] = yes_probability(pair)
        values.append(row)
    return _with_errors(
        _scored(rows, values),
        rows,
        [scores if scores.error else None for scores in scored],
        tokens_in=sum(scores.tokens_in for scores in scored),
    )


def rank_by_code(rows: pl.DataFrame, arguments: Ranking, model: LanguageModel) -> Output:
    """Shortlist the labels whose one-token codes are the most probable answers, one question a dimension."""
    template = arguments.template
    if template is None:
        raise ConfigError("ranking labels by code needs a template")
    shortlists: list[list[str]] = [[] for _ in range(rows.height)]
    scored: list[Scores] = []
    for taxonomy in arguments.taxonomies:
        if len(taxonomy.labels) > len(CODES):
            raise ConfigError(
                f"taxonomy {taxonomy.dimension!r} has {len(taxonomy.labels)} labels and there are {len(CODES)} "
                "one-token codes: use the route exhaustive, or shortlist by embedding"
            )
        codes = CODES[: len(taxonomy.labels)]
        lines = "\n".join(f"{code}: {label.name}" for code, label in zip(codes, taxonomy.labels, strict=True))
        requests = [
            ScoreRequest(
                instruction=template.render("instruction", dimension=taxonomy.dimension, codes=lines),
                context=template.render("context", prompt=prompt),
                questions=(template.render("question", dimension=taxonomy.dimension),),
                answers=tuple(codes),
            )
            for prompt in transcripts(rows)
        ]
        answers = model.score(requests)
        scored += answers
        for shortlist, scores in zip(shortlists, answers, strict=True):
            if scores.error is None:
                shortlist.extend(_best(taxonomy.labels, scores.logprobs[0], arguments.k))
    failed = [
        next((scores for scores in scored[row :: rows.height] if scores.error), None) for row in range(rows.height)
    ]
    return _with_errors(
        rows.with_columns(pl.Series("shortlist", shortlists, dtype=tables.TEXTS)),
        rows,
        failed,
        tokens_in=sum(scores.tokens_in for scores in scored),
    )


def rank_by_embedding(rows: pl.DataFrame, arguments: Ranking, model: Embedder) -> Output:
    """Shortlist the labels whose definitions are nearest to the prompt."""
    prompts = model.embed(transcripts(rows))
    shortlists: list[list[str]] = [[] for _ in range(rows.height)]
    for taxonomy in arguments.taxonomies:
        for shortlist, row in zip(shortlists, similarities(prompts, taxonomy, model), strict=True):
            shortlist.extend(_best(taxonomy.labels, row, arguments.k))
    return Output(rows=rows.with_columns(pl.Series("shortlist", shortlists, dtype=tables.TEXTS)))


def embed_prompts(rows: pl.DataFrame, arguments: NoArguments, model: Embedder) -> Output:  # noqa: ARG001  # it has none
    """Return the vector of each prompt."""
    vectors = pl.Series("vector", model.embed(transcripts(rows)))
    return Output(rows=rows.select("row_id", vectors.arr.to_list(), prompt_id="row_id"))


def score_by_embedding(rows: pl.DataFrame, arguments: Labels, calibration: pl.DataFrame) -> Output:
    """Return the calibrated probability of every label for prompts whose vectors are known."""
    import numpy as np

    from normloom.tasks.calibration import Calibration, probabilities

    prompts = rows["vector"].explode().to_numpy().reshape(rows.height, -1)
    fitted = {row["dimension"]: row for row in calibration.iter_rows(named=True)}
    columns = []
    for taxonomy in arguments.taxonomies:
        row = fitted[taxonomy.dimension]
        scores = prompts @ np.array(row["vectors"], dtype=np.float32).T
        columns.append(probabilities(scores, Calibration.model_validate_json(row["coefficients"])))
    values = pl.Series("probabilities", np.hstack(columns)).arr.to_list()
    return Output(rows=rows.select("row_id", "prompt_id", values))


def keep_labels(rows: pl.DataFrame, arguments: Labelling, scores: pl.DataFrame) -> Output:
    """Return every prompt that has scores with its probabilities and the labels that reach delta.

    Probabilities are stored in single precision, and so are compared: one that is nearer to delta than that counts
    as equal to it.
    """
    said = scores.select("probabilities", row_id="prompt_id", through="row_id")
    prompts = rows.join(said, on="row_id", maintain_order="left").drop("shortlist", strict=False)
    labels = [(taxonomy.dimension, label.id) for taxonomy in arguments.taxonomies for label in taxonomy.labels]
    dimensions, names = zip(*labels, strict=True)
    places, of = list(range(len(labels))), pl.element().struct
    reaching = pl.col("probabilities").list.eval(
        pl.struct(place=pl.int_range(pl.len()), probability=pl.element()).filter(
            pl.element() >= pl.lit(arguments.delta, dtype=pl.Float32)
        )
    )
    named = pl.struct(
        dimension=of.field("place").replace_strict(places, dimensions, return_dtype=pl.String),
        label=of.field("place").replace_strict(places, names, return_dtype=pl.String),
        probability=of.field("probability"),
    )
    return Output(
        rows=prompts.with_columns(
            seed=pl.lit(None, dtype=pl.Int64),
            tokens_out=pl.lit(None, dtype=pl.Int32),
            labels=reaching.list.eval(named),
        ),
        attempts=prompts.height,
    )


def fit_calibration(rows: pl.DataFrame, arguments: Labels, model: Embedder) -> Output:
    """Learn vectors of labels and of none, and their calibration, for each dimension, on labelled prompts."""
    import numpy as np

    from normloom.tasks.calibration import train

    prompts = model.embed(transcripts(rows))
    fitted = []
    for taxonomy in arguments.taxonomies:
        truth = np.array(
            [[label.id in reference for label in taxonomy.labels] for reference in rows["reference"].to_list()]
        )
        vectors, calibration = train(embed_texts(taxonomy, model), prompts, truth)
        fitted.append(
            {
                "parents": rows["row_id"].to_list(),
                "content": taxonomy.dimension,
                "dimension": taxonomy.dimension,
                "prompts": rows.height,
                "coefficients": calibration.model_dump_json(),
                "vectors": vectors.tolist(),
            }
        )
    schema = tables.named_by_content(tables.CALIBRATION)
    return Output(rows=pl.DataFrame(fitted, schema=schema), attempts=len(fitted))


def embed_texts(taxonomy: Taxonomy, model: Embedder) -> np.ndarray:
    """Return the vectors of each label's texts, shape (labels, texts, dimensions)."""
    import numpy as np

    from normloom.tasks.calibration import label_texts

    texts = [text for label in taxonomy.labels for text in label_texts(label)]
    return np.stack(np.split(model.embed(texts), len(taxonomy.labels)))


def similarities(prompts: np.ndarray, taxonomy: Taxonomy, model: Embedder) -> np.ndarray:
    """Return the cosine of each prompt with the mean of each label's texts, shape (prompts, labels)."""
    import numpy as np

    centres = embed_texts(taxonomy, model).mean(axis=1)
    return np.asarray(prompts @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T)


def _best(labels: Sequence[Label], scores: Sequence[float] | np.ndarray, k: int) -> list[str]:
    order = sorted(range(len(labels)), key=lambda place: (-float(scores[place]), place))
    return [labels[place].id for place in order[:k]]


def _scored(rows: pl.DataFrame, values: Sequence[Sequence[float | None]]) -> pl.DataFrame:
    """Return the probabilities of all labels under the id of the prompt that they are of."""
    probabilities = pl.Series("probabilities", values, dtype=pl.List(pl.Float32))
    return rows.select("row_id", probabilities, prompt_id="row_id")


def _with_errors(made: pl.DataFrame, rows: pl.DataFrame, failed: Sequence[Scores | None], *, tokens_in: int) -> Output:
    """Return what was made of the rows that were scored, and the other rows quarantined with the model's reason."""
    scored = pl.Series([scores is None for scores in failed], dtype=pl.Boolean)
    aside = [
        unanswered(row, scores)
        for row, scores in zip(rows.iter_rows(named=True), failed, strict=True)
        if scores is not None
    ]
    return Output(rows=made.filter(scored), quarantined=quarantined_frame(aside), tokens_in=tokens_in)


def shortlist(
    prompts: Stage, *, arguments: Ranking, model: ModelSpec, part_rows: int | None, name: str = "shortlist"
) -> Stage:
    """Return the stage that picks the labels to ask about; by embedding where there is no template."""
    return Stage(
        name=name,
        function=rank_by_code if arguments.template else rank_by_embedding,
        bound=bounds.labels_ranked,
        arguments=arguments,
        contract=tables.SHORTLISTED,
        inputs=(prompts,),
        model=model,
        part_rows=part_rows,
    )


def score_labels(
    prompts: Stage, *, arguments: Asking, model: ModelSpec, part_rows: int | None, name: str = "score_labels"
) -> Stage:
    """Return the stage that asks a language model about labels."""
    return Stage(
        name=name,
        function=ask_labels,
        bound=bounds.labels_asked,
        arguments=arguments,
        contract=tables.LABEL_SCORES,
        inputs=(prompts,),
        model=model,
        part_rows=part_rows,
    )


def calibrate(prompts: Stage, *, arguments: Labels, model: ModelSpec, name: str = "calibrate") -> Stage:
    """Return the stage that fits the calibration of labels by embedding."""
    return Stage(
        name=name,
        function=fit_calibration,
        bound=bounds.as_many,
        arguments=arguments,
        contract=tables.CALIBRATION,
        inputs=(prompts,),
        model=model,
    )


def embed(prompts: Stage, *, model: ModelSpec, part_rows: int | None, name: str = "embed") -> Stage:
    """Return the stage that embeds prompts."""
    return Stage(
        name=name,
        function=embed_prompts,
        bound=bounds.as_many,
        arguments=NoArguments(),
        contract=tables.EMBEDDED,
        inputs=(prompts,),
        model=model,
        part_rows=part_rows,
    )


def score_labels_by_embedding(
    embedded: Stage, calibration: Stage, *, arguments: Labels, name: str = "score_labels"
) -> Stage:
    """Return the stage that makes probabilities of vectors, without a model."""
    return Stage(
        name=name,
        function=score_by_embedding,
        arguments=arguments,
        contract=tables.LABEL_SCORES,
        inputs=(embedded,),
        sides=(calibration,),
        part_rows=_PART_ROWS,
    )


def classify(prompts: Stage, scores: Stage, *, arguments: Labelling, name: str = "classify") -> Stage:
    """Return the stage that labels prompts by the probabilities of their labels, without a model."""
    return Stage(
        name=name,
        function=keep_labels,
        bound=bounds.as_many,
        arguments=arguments,
        contract=tables.LABELLED,
        inputs=(prompts,),
        sides=(scores,),
        sides_on="prompt_id",
        part_rows=_PART_ROWS,
    )
