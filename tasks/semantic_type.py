"""Give each prompt one semantic type: the way in which a response to it is most likely to be misaligned.

The types are those of MisAlign-Profile (arXiv 2602.11091); their definitions, and the choice by one-token codes, are
ours.
"""

from __future__ import annotations

import polars as pl
from pydantic import BaseModel, ConfigDict

from normloom.models.protocol import LanguageModel, ModelSpec, ScoreRequest
from normloom.schemas import tables
from normloom.schemas.taxonomy import Taxonomy
from normloom.schemas.template import Template
from normloom.stage import Output, Stage, quarantined_frame, unanswered
from normloom.tasks import bounds
from normloom.tasks.classify import CODES
from normloom.tasks.dialogue import transcripts

_PART_ROWS = 16_384


class Typing(BaseModel):
    """The types there are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    types: Taxonomy


class AskingType(Typing):
    """The types there are, and the template that asks for the code of one."""

    template: Template


def score_types(rows: pl.DataFrame, arguments: AskingType, model: LanguageModel) -> Output:
    """Return for each prompt the log-probability of each type's code, in the taxonomy's order."""
    template, labels = arguments.template, arguments.types.labels
    codes = CODES[: len(labels)]
    lines = "\n".join(f"{code}: {label.name}. {label.definition}" for code, label in zip(codes, labels, strict=True))
    scored = model.score(
        [
            ScoreRequest(
                instruction=template.render("instruction", codes=lines),
                context=template.render("context", prompt=prompt),
                questions=(template.render("question"),),
                answers=tuple(codes),
            )
            for prompt in transcripts(rows)
        ]
    )
    said, failed = [], []
    for row, scores in zip(rows.iter_rows(named=True), scored, strict=True):
        if scores.error is None:
            said.append((row["row_id"], row["prompt_id"], list(scores.logprobs[0])))
        else:
            failed.append(unanswered(row, scores))
    return Output(
        rows=pl.DataFrame(said, schema={"row_id": pl.String, **tables.TYPE_SCORES.columns}, orient="row"),
        quarantined=quarantined_frame(failed),
        tokens_in=sum(scores.tokens_in for scores in scored),
    )


def most_probable_types(rows: pl.DataFrame, arguments: Typing, scores: pl.DataFrame) -> Output:
    """Return every prompt that has scores with them and the id of its type; of equally probable ones the first."""
    said = scores.select("type_logprobs", row_id="prompt_id", through="row_id")
    ids = [label.id for label in arguments.types.labels]
    best = pl.col("type_logprobs").list.arg_max().replace_strict(range(len(ids)), ids, return_dtype=pl.String)
    typed = rows.join(said, on="row_id", maintain_order="left").with_columns(semantic_type=best)
    return Output(rows=typed, attempts=typed.height)


def score_semantic_types(
    prompts: Stage, *, arguments: AskingType, model: ModelSpec, part_rows: int | None, name: str = "score_types"
) -> Stage:
    """Return the stage that asks for each prompt's semantic type."""
    return Stage(
        name=name,
        function=score_types,
        bound=bounds.types_asked,
        arguments=arguments,
        contract=tables.TYPE_SCORES,
        inputs=(prompts,),
        model=model,
        part_rows=part_rows,
    )


def type_semantically(prompts: Stage, scores: Stage, *, arguments: Typing, name: str = "semantic_type") -> Stage:
    """Return the stage that gives each prompt its most probable semantic type, without a model."""
    return Stage(
        name=name,
        function=most_probable_types,
        bound=bounds.as_many,
        arguments=arguments,
        contract=tables.TYPED,
        inputs=(prompts,),
        sides=(scores,),
        sides_on="prompt_id",
        part_rows=_PART_ROWS,
    )
