"""Mode responder: a model under test answers prompts, and a panel of judges checks what it wrote."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from normloom.models.protocol import GenerateRequest, LanguageModel, ModelSpec, Sampling
from normloom.rows import seed
from normloom.schemas import benchmark_tables
from normloom.schemas.template import Template
from normloom.stage import NoArguments, Output, Stage, quarantined_frame, unanswered
from normloom.tasks import bounds
from normloom.tasks.dialogue import turns
from normloom.tasks.judge import Scoring, score_candidates, text_fault


class Responding(BaseModel):
    """The model's name and how it answers, once in each run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    template: Template
    runs: int = Field(3, ge=1)
    sampling: Sampling = Sampling(repetition_penalty=1.1)


class Assessing(Scoring):
    """One judge of the panel; its probabilities are stored, thresholds come later."""

    judge: str


def find_questions(rows: pl.DataFrame, arguments: NoArguments) -> Output:  # noqa: ARG001  # it has none
    """Return each prompt once, with the rows that hold it as its parents."""
    prompts = rows.group_by("prompt_id", maintain_order=True).agg(
        pl.col("row_id").alias("parents"), pl.col("history", "prompt", "dimensions", "semantic_type").first()
    )
    return Output(rows=prompts.with_columns(content="prompt_id"), attempts=prompts.height)


def draw_responses(rows: pl.DataFrame, arguments: Responding, model: LanguageModel) -> Output:
    """Return one response for each prompt and run."""
    template = arguments.template
    asked = list(rows.iter_rows(named=True))
    completions = model.generate(
        [
            GenerateRequest(
                instruction=template.render("instruction"),
                prompt=template.render("prompt", prompt=question["prompt"]),
                seeds=tuple(seed(question["prompt_id"], arguments.model, run) for run in range(arguments.runs)),
                sampling=arguments.sampling,
                history=turns(question["history"]),
            )
            for question in asked
        ]
    )
    drawn, failed = [], []
    for question, completion in zip(asked, completions, strict=True):
        if completion.error is not None:
            failed.append(unanswered(question, completion))
        for run, candidate in enumerate(completion.candidates):
            drawn.append(
                {
                    **question,
                    "model": arguments.model,
                    "run": run,
                    "seed": candidate.seed,
                    "response": candidate.text.strip(),
                    "finish": candidate.finish,
                    "tokens_out": candidate.tokens_out,
                }
            )
    return Output(
        rows=pl.DataFrame(drawn, schema={"row_id": pl.String, **benchmark_tables.RESPONDED.columns}),
        quarantined=quarantined_frame(failed),
        attempts=len(drawn) + len(failed),
        tokens_in=sum(completion.tokens_in for completion in completions),
        tokens_out=sum(row["tokens_out"] for row in drawn),
    )


def assess_responses(rows: pl.DataFrame, arguments: Assessing, model: LanguageModel) -> Output:
    """Return the judge's check probabilities for each response, by the checks that made the data set."""
    scored = score_candidates(rows, arguments, model)
    checks = scored.rows.select("row_id", "checks")
    assessed = rows.join(checks, on="row_id", how="inner", maintain_order="left").with_columns(
        judge=pl.lit(arguments.judge),
        fault=pl.col("response").map_elements(text_fault, return_dtype=pl.String, skip_nulls=False),
    )
    return replace(scored, rows=assessed.select("row_id", *benchmark_tables.ASSESSED.columns))


def questions(items: Stage, *, name: str = "questions") -> Stage:
    """Return the stage that takes each prompt of the evaluated rows once."""
    return Stage(
        name=name,
        function=find_questions,
        bound=bounds.as_many,
        arguments=NoArguments(),
        contract=benchmark_tables.QUESTIONS,
        inputs=(items,),
    )


def respond(asked: Stage, *, arguments: Responding, model: ModelSpec, part_rows: int | None) -> Stage:
    """Return the stage in which one model under test answers the prompts."""
    return Stage(
        name=f"respond_{arguments.model}",
        function=draw_responses,
        bound=bounds.prompts_answered,
        arguments=arguments,
        contract=benchmark_tables.RESPONDED,
        inputs=(asked,),
        model=model,
        part_rows=part_rows,
    )


def assess(responses: Stage, *, arguments: Assessing, of: str, model: ModelSpec, part_rows: int | None) -> Stage:
    """Return the stage in which one judge of the panel checks the responses of the model `of`."""
    return Stage(
        name=f"judge_{of}_by_{arguments.judge}",
        function=assess_responses,
        bound=bounds.checks_asked,
        arguments=arguments,
        contract=benchmark_tables.ASSESSED,
        inputs=(responses,),
        model=model,
        part_rows=part_rows,
    )
