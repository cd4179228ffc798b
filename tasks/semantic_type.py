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
from normloom.tasks.classify import CODES


class Typing(BaseModel):
    """The types there are, and the template that asks for the code of one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    types: Taxonomy
    template: Template


def type_prompts(rows: pl.DataFrame, arguments: Typing, model: LanguageModel) -> Output:
    """Return the prompts with the id of their type and the log-probability of each code, in the taxonomy's order."""
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
            for prompt in rows["prompt"]
        ]
    )
    typed, failed = [], []
    for row, scores in zip(rows.iter_rows(named=True), scored, strict=True):
        if scores.error is not None:
            failed.append(unanswered(row, scores))
            continue
        [logprobs] = scores.logprobs
        best = max(range(len(labels)), key=logprobs.__getitem__)
        typed.append({**row, "semantic_type": labels[best].id, "type_logprobs": list(logprobs)})
    return Output(
        rows=pl.DataFrame(typed, schema={"row_id": pl.String, **tables.TYPED.columns}),
        quarantined=quarantined_frame(failed),
        tokens_in=sum(scores.tokens_in for scores in scored),
    )


def type_semantically(
    prompts: Stage, *, arguments: Typing, model: ModelSpec, part_rows: int | None, name: str = "semantic_type"
) -> Stage:
    """Return the stage that gives each prompt its semantic type."""
    return Stage(
        name=name,
        function=type_prompts,
        arguments=arguments,
        contract=tables.TYPED,
        inputs=(prompts,),
        model=model,
        part_rows=part_rows,
    )
