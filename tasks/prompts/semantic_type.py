"""Give each prompt one semantic type: the way in which a response to it is most likely to be misaligned.

The types are those of MisAlign-Profile (arXiv 2602.11091); their definitions, and the choice by one-token codes, are
ours.
"""

from __future__ import annotations

from typing import Annotated

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each, free
from normloom.core.models.protocol import LanguageModel, ScoreRequest
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.taxonomy import Taxonomy
from normloom.schemas.template import Template, sections, template_named
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.answers import answered
from normloom.tasks.prompts.classify import CODES
from normloom.tasks.prompts.dialogue import transcripts

_PART_ROWS = 16_384


class AskingType(Args):
    """The template that asks for the code of a type."""

    template: Annotated[Template, sections(("instruction", "context", "question"))] = template_named("semantic_type")
    part_rows: int = Field(256, ge=1, exclude=True, description="prompts in one part")


@step(makes=tables.TYPE_SCORES, bound=bounds.types_asked, fan_out=each())
def score_types(rows: pl.DataFrame, args: AskingType, model: LanguageModel, *, types: Taxonomy) -> Output:
    """Return for each prompt the log-probability of each type's code, in the taxonomy's order."""
    template, labels = args.template, types.labels
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
    outcome = answered(rows.iter_rows(named=True), scored)
    said = [(row["row_id"], row["prompt_id"], list(scores.logprobs[0])) for row, scores in outcome.pairs]
    return outcome.output(pl.DataFrame(said, schema={"row_id": pl.String, **tables.TYPE_SCORES.columns}, orient="row"))


@step(
    makes=tables.TYPED,
    part_rows=_PART_ROWS,
    sides_on="prompt_id",
    bound=bounds.as_many,
    fan_out=free("rows without scores are on record where they were asked"),
)
def semantic_type(rows: pl.DataFrame, scores: pl.DataFrame, *, types: Taxonomy) -> Output:
    """Return every prompt that has scores with them and the id of its type; of equally probable ones the first."""
    said = scores.select("type_logprobs", row_id="prompt_id", through="row_id")
    ids = [label.id for label in types.labels]
    best = pl.col("type_logprobs").list.arg_max().replace_strict(range(len(ids)), ids, return_dtype=pl.String)
    typed = rows.join(said, on="row_id", maintain_order="left").with_columns(semantic_type=best)
    return Output(rows=typed)
