"""Mode responder: a model under test answers prompts, and a panel of judges checks what it wrote."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each, free
from normloom.core.models.protocol import GenerateRequest, LanguageModel, Sampling
from normloom.core.rows.ids import seed
from normloom.core.stage import Output
from normloom.schemas import benchmark_tables
from normloom.schemas.taxonomy import DIMENSIONS
from normloom.schemas.template import Template, sections, template_named
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.answers import answered
from normloom.tasks.prompts.dialogue import turns
from normloom.tasks.rejection.judge import Scoring, score, text_fault


class Responding(Args):
    """How a model under test answers prompts, once in each run."""

    template: Annotated[Template, sections(("instruction", "prompt"))] = template_named("respond")
    runs: int = Field(3, ge=1, description="answers to each prompt")
    sampling: Sampling = Sampling(repetition_penalty=1.1)
    part_rows: int = Field(64, ge=1, exclude=True, description="prompts in one part")


@step(makes=benchmark_tables.QUESTIONS, bound=bounds.as_many, fan_out=free("one row for each prompt"))
def questions(rows: pl.DataFrame) -> Output:
    """Return each prompt once, with the rows that hold it as its parents."""
    prompts = rows.group_by("prompt_id", maintain_order=True).agg(
        pl.col("row_id").alias("parents"), pl.col("history", "prompt", "dimensions", "semantic_type").first()
    )
    return Output(rows=prompts.with_columns(content="prompt_id"))


@step(
    makes=benchmark_tables.RESPONDED,
    name="respond_{entrant}",
    bound=bounds.prompts_answered,
    fan_out=lambda given: each(given["runs"]),
)
def respond(rows: pl.DataFrame, args: Responding, model: LanguageModel, *, entrant: str) -> Output:
    """Return one response for each prompt and run."""
    template = args.template
    asked = list(rows.iter_rows(named=True))
    completions = model.generate(
        [
            GenerateRequest(
                instruction=template.render("instruction"),
                prompt=template.render("prompt", prompt=question["prompt"]),
                seeds=tuple(seed(question["prompt_id"], entrant, run) for run in range(args.runs)),
                sampling=args.sampling,
                history=turns(question["history"]),
            )
            for question in asked
        ]
    )
    outcome = answered(asked, completions)
    drawn = [
        {
            **question,
            "model": entrant,
            "run": run,
            "seed": candidate.seed,
            "response": candidate.text.strip(),
            "finish": candidate.finish,
            "tokens_out": candidate.tokens_out,
        }
        for question, completion in outcome.pairs
        for run, candidate in enumerate(completion.candidates)
    ]
    return outcome.output(pl.DataFrame(drawn, schema={"row_id": pl.String, **benchmark_tables.RESPONDED.columns}))


@step(makes=benchmark_tables.ASSESSED, name="judge_{entrant}_by_{judge}", bound=bounds.checks_asked, fan_out=each())
def assess(
    rows: pl.DataFrame,
    args: Scoring,
    model: LanguageModel,
    *,
    entrant: str,  # noqa: ARG001  # names the stage
    judge: str,
    dimensions: tuple[str, ...] = DIMENSIONS,
) -> Output:
    """Return the judge's check probabilities for each response, by the checks that made the data set."""
    scored = score.function(rows, args, model, dimensions=dimensions)
    checks = scored.rows.select("row_id", "checks")
    assessed = rows.join(checks, on="row_id", how="inner", maintain_order="left").with_columns(
        judge=pl.lit(judge),
        fault=pl.col("response").map_elements(text_fault, return_dtype=pl.String, skip_nulls=False),
    )
    return replace(scored, rows=assessed.select("row_id", *benchmark_tables.ASSESSED.columns))
