"""Label prompts: the probability of each label, and the labels whose probability reaches delta.

Three routes. `exhaustive` asks a language model a yes/no question about every label; `shortlist` asks
about the best k only, ranked by the log-probability of a one-token code per label or by embedding;
`embedding` asks nothing: a regression from sentence vectors to labels, fitted on labelled prompts of our own
(tasks/prompts/calibration.py).

What a model says (probabilities, vectors) is the table of one stage; which labels are kept is decided in the next, so
that another delta asks no model.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import polars as pl
from pydantic import Field

from normloom.core.errors import ConfigError
from normloom.core.fan_out import each, free
from normloom.core.models.protocol import Embedder, LanguageModel, ScoreRequest, Scores
from normloom.core.stage import Output, quarantined_frame, unanswered
from normloom.schemas import tables
from normloom.schemas.taxonomy import Label, Taxonomy
from normloom.schemas.template import Template, sections, template_named
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.prompts.dialogue import transcripts

if TYPE_CHECKING:
    import numpy as np

YES_NO = ("Yes", "No")
_PART_ROWS = 2048
_ASKS = sections(("instruction", "context", "question"))
CODES = string.ascii_uppercase + string.ascii_lowercase + string.digits


class Labelling(Args):
    """The probability from which a label is kept."""

    delta: float = Field(0.5, gt=0, lt=1, description="probability from which a label is kept")


class Parts(Args):
    """How prompts are cut into parts for a model."""

    part_rows: int = Field(256, ge=1, exclude=True, description="prompts in one part")


class Asking(Parts):
    """How a language model is asked about a label."""

    template: Annotated[Template, _ASKS] = template_named("classify")


class Ranking(Parts):
    """How many labels of each dimension are shortlisted."""

    shortlist: int = Field(8, ge=1, description="number of labels of each dimension to ask about")


class RankingByCode(Ranking):
    """How a language model ranks labels by their codes."""

    rank_template: Annotated[Template, _ASKS] = template_named("rank")


def yes_probability(scores: Sequence[float]) -> float:
    """Return P(yes) / (P(yes) + P(no)) from the log-probabilities of the two answers."""
    yes, no = scores
    return 1 / (1 + math.exp(min(no - yes, 700.0)))


@step(
    makes=tables.LABEL_SCORES,
    reads=("history", "prompt", "shortlist"),
    bound=bounds.labels_asked,
    fan_out=each(),
)
def score_labels(rows: pl.DataFrame, args: Asking, model: LanguageModel, *, taxonomies: tuple[Taxonomy, ...]) -> Output:
    """Return the probability of every label, or of those of the row's `shortlist` if it has one."""
    labels = [(taxonomy.dimension, label) for taxonomy in taxonomies for label in taxonomy.labels]
    asked = [
        [
            position
            for position, (_, label) in enumerate(labels)
            if "shortlist" not in row or label.id in row["shortlist"]
        ]
        for row in rows.iter_rows(named=True)
    ]
    questions = [
        args.template.render("question", dimension=dimension, label=label.name, definition=label.definition)
        for dimension, label in labels
    ]
    requests = [
        ScoreRequest(
            instruction=args.template.render("instruction"),
            context=args.template.render("context", prompt=prompt),
            questions=tuple(questions[position] for position in positions),
            answers=YES_NO,
        )
        for prompt, positions in zip(transcripts(rows), asked, strict=True)
    ]
    scored = model.score(requests)
    values: list[list[float | None]] = []
    for positions, scores in zip(asked, scored, strict=True):
        row: list[float | None] = [None] * len(labels)
        if scores.error is None:
            for position, pair in zip(positions, scores.logprobs, strict=True):
                row[position] = yes_probability(pair)
        values.append(row)
    return _with_errors(
        _scored(rows, values),
        rows,
        [scores if scores.error else None for scores in scored],
        tokens_in=sum(scores.tokens_in for scores in scored),
    )


@step(makes=tables.SHORTLISTED, name="shortlist", bound=bounds.labels_ranked, fan_out=each())
def shortlist_by_code(
    rows: pl.DataFrame, args: RankingByCode, model: LanguageModel, *, taxonomies: tuple[Taxonomy, ...]
) -> Output:
    """Shortlist the labels whose one-token codes are the most probable answers, one question a dimension."""
    template = args.rank_template
    shortlists: list[list[str]] = [[] for _ in range(rows.height)]
    scored: list[Scores] = []
    for taxonomy in taxonomies:
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
                shortlist.extend(_best(taxonomy.labels, scores.logprobs[0], args.shortlist))
    failed = [
        next((scores for scores in scored[row :: rows.height] if scores.error), None) for row in range(rows.height)
    ]
    return _with_errors(
        rows.with_columns(pl.Series("shortlist", shortlists, dtype=tables.TEXTS)),
        rows,
        failed,
        tokens_in=sum(scores.tokens_in for scores in scored),
    )


@step(makes=tables.SHORTLISTED, name="shortlist", bound=bounds.as_many, fan_out=each(), libraries=("numpy",))
def shortlist_by_embedding(
    rows: pl.DataFrame, args: Ranking, model: Embedder, *, taxonomies: tuple[Taxonomy, ...]
) -> Output:
    """Shortlist the labels whose definitions are nearest to the prompt."""
    prompts = model.embed(transcripts(rows))
    shortlists: list[list[str]] = [[] for _ in range(rows.height)]
    for taxonomy in taxonomies:
        for shortlist, row in zip(shortlists, similarities(prompts, taxonomy, model), strict=True):
            shortlist.extend(_best(taxonomy.labels, row, args.shortlist))
    return Output(rows=rows.with_columns(pl.Series("shortlist", shortlists, dtype=tables.TEXTS)))


@step(makes=tables.EMBEDDED, reads=("history", "prompt"), bound=bounds.as_many, fan_out=each(), libraries=("numpy",))
def embed(rows: pl.DataFrame, args: Parts, model: Embedder) -> Output:  # noqa: ARG001  # they cut the parts
    """Return the vector of each prompt."""
    vectors = pl.Series("vector", model.embed(transcripts(rows)))
    return Output(rows=rows.select("row_id", vectors.arr.to_list(), prompt_id="row_id"))


@step(makes=tables.LABEL_SCORES, name="score_labels", part_rows=_PART_ROWS, fan_out=each(), libraries=("numpy",))
def score_labels_by_embedding(
    rows: pl.DataFrame, calibration: pl.DataFrame, *, taxonomies: tuple[Taxonomy, ...]
) -> Output:
    """Return the calibrated probability of every label for prompts whose vectors are known."""
    import numpy as np

    from normloom.tasks.prompts.calibration import Calibration, probabilities

    prompts = rows["vector"].explode().to_numpy().reshape(rows.height, -1)
    fitted = {row["dimension"]: row for row in calibration.iter_rows(named=True)}
    columns = []
    for taxonomy in taxonomies:
        row = fitted[taxonomy.dimension]
        # Not by BLAS, whose last bits of a row depend on how many there are: a row that goes would change the others.
        scores = np.einsum("pd,ld->pl", prompts, np.array(row["vectors"], dtype=np.float32))
        columns.append(probabilities(scores, Calibration.model_validate_json(row["coefficients"])))
    values = pl.Series("probabilities", np.hstack(columns)).arr.to_list()
    return Output(rows=rows.select("row_id", "prompt_id", values))


@step(
    makes=tables.LABELLED,
    part_rows=_PART_ROWS,
    sides_on="prompt_id",
    bound=bounds.as_many,
    fan_out=free("rows without scores are on record where they were asked"),
)
def classify(rows: pl.DataFrame, args: Labelling, scores: pl.DataFrame, *, taxonomies: tuple[Taxonomy, ...]) -> Output:
    """Return every prompt that has scores with its probabilities and the labels that reach delta.

    Probabilities are stored in single precision, and so are compared: one that is nearer to delta than that counts
    as equal to it.
    """
    said = scores.select("probabilities", row_id="prompt_id", through="row_id")
    prompts = rows.join(said, on="row_id", maintain_order="left").drop("shortlist", strict=False)
    labels = [(taxonomy.dimension, label.id) for taxonomy in taxonomies for label in taxonomy.labels]
    dimensions, names = zip(*labels, strict=True)
    positions, of = list(range(len(labels))), pl.element().struct
    reaching = pl.col("probabilities").list.eval(
        pl.struct(position=pl.int_range(pl.len()), probability=pl.element()).filter(
            pl.element() >= pl.lit(args.delta, dtype=pl.Float32)
        )
    )
    named = pl.struct(
        dimension=of.field("position").replace_strict(positions, dimensions, return_dtype=pl.String),
        label=of.field("position").replace_strict(positions, names, return_dtype=pl.String),
        probability=of.field("probability"),
    )
    return Output(
        rows=prompts.with_columns(
            seed=pl.lit(None, dtype=pl.Int64),
            tokens_out=pl.lit(None, dtype=pl.Int32),
            labels=reaching.list.eval(named),
        ),
    )


@step(
    makes=tables.CALIBRATION,
    bound=bounds.as_many,
    fan_out=free("one row for each dimension"),
    libraries=("numpy", "scikit-learn"),
)
def calibrate(rows: pl.DataFrame, model: Embedder, *, taxonomies: tuple[Taxonomy, ...]) -> Output:
    """Learn vectors of labels and of none, and their calibration, for each dimension, on labelled prompts."""
    import numpy as np

    from normloom.tasks.prompts.calibration import train

    prompts = model.embed(transcripts(rows))
    fitted = []
    for taxonomy in taxonomies:
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
    return Output(rows=pl.DataFrame(fitted, schema=schema))


def embed_texts(taxonomy: Taxonomy, model: Embedder) -> np.ndarray:
    """Return the vectors of each label's texts, shape (labels, texts, dimensions)."""
    import numpy as np

    from normloom.tasks.prompts.calibration import label_texts

    texts = [text for label in taxonomy.labels for text in label_texts(label)]
    return np.stack(np.split(model.embed(texts), len(taxonomy.labels)))


def similarities(prompts: np.ndarray, taxonomy: Taxonomy, model: Embedder) -> np.ndarray:
    """Return the cosine of each prompt with the mean of each label's texts, shape (prompts, labels)."""
    import numpy as np

    centres = embed_texts(taxonomy, model).mean(axis=1)
    return np.asarray(prompts @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T)


def _best(labels: Sequence[Label], scores: Sequence[float] | np.ndarray, k: int) -> list[str]:
    order = sorted(range(len(labels)), key=lambda position: (-float(scores[position]), position))
    return [labels[position].id for position in order[:k]]


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
