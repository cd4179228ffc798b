"""Draw candidate responses: K for each prompt and generator, each with a seed of its own."""

from __future__ import annotations

from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from normloom.models.protocol import GenerateRequest, LanguageModel, ModelSpec, Sampling
from normloom.rows import seed
from normloom.schemas import tables
from normloom.schemas.template import Template
from normloom.stage import Output, Stage, dropped_rows, quarantined_frame, unanswered
from normloom.tasks import bounds
from normloom.tasks.dialogue import turns

CUT_EMPTY = "cut_empty"  # responses that were cut off at max_tokens before they began
_OF_A_DRAW = ("attempt", "seed", "response", "finish", "tokens_out", "reasoning")
_ASKED = ("prompt_id", "history", "prompt", "targets", "wanted", "diagnosis")
_DRAWN: dict[str, pl.DataType] = {"task": pl.Int64(), **{name: tables.CANDIDATES.columns[name] for name in _OF_A_DRAW}}


class Generation(BaseModel):
    """One generator of the pool and how many candidates it draws for a prompt.

    In round 0 the rows are prompts; in later rounds they are diagnosed shortfalls, of which those of
    this generator are tried again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: str
    round: int = Field(0, ge=0)
    candidates: int = Field(3, ge=1)
    sampling: Sampling = Sampling()
    template: Template


def draw_candidates(rows: pl.DataFrame, arguments: Generation, model: LanguageModel) -> Output:
    """Draw candidates; a prompt without a label has no target and is dropped."""
    asked, unlabelled = _asked(rows, arguments)
    tasks = asked.select("row_id", *_ASKED)
    completions = model.generate([_request(task, arguments) for task in tasks.iter_rows(named=True)])
    failed = [
        unanswered(tasks.row(place, named=True), completion)
        for place, completion in enumerate(completions)
        if completion.error is not None
    ]
    drawn = [
        (
            *(place, attempt, candidate.seed, candidate.text.strip(), candidate.finish, candidate.tokens_out),
            candidate.reasoning or None,
        )
        for place, completion in enumerate(completions)
        for attempt, candidate in enumerate(completion.candidates)
    ]
    texts = pl.DataFrame(drawn, schema=_DRAWN, orient="row")
    candidates = pl.concat([tasks[texts["task"].to_list()], texts.drop("task")], how="horizontal").with_columns(
        generator=pl.lit(arguments.generator), round=pl.lit(arguments.round, dtype=pl.Int32)
    )
    dropped = dropped_rows(unlabelled, reason=pl.lit("no_label"), winner=pl.lit(None))
    return Output(
        rows=candidates.select("row_id", *tables.CANDIDATES.columns),
        dropped=dropped,
        quarantined=quarantined_frame(failed),
        attempts=candidates.height + dropped.height + len(failed),
        tokens_in=sum(completion.tokens_in for completion in completions),
        tokens_out=sum(candidate.tokens_out for completion in completions for candidate in completion.candidates),
        metrics={CUT_EMPTY: float(candidates.filter(response="", finish="length").height)},
    )


def _asked(rows: pl.DataFrame, arguments: Generation) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return what this generator is asked (prompts, or its own diagnosed shortfalls) and prompts without a label."""
    if "generator" in rows.columns:
        return rows.filter(generator=arguments.generator), rows.clear()
    labelled, nothing = pl.col("labels").list.len() > 0, pl.lit(None, dtype=pl.String)
    asked = rows.filter(labelled).with_columns(
        prompt_id="row_id", targets=tables.DIMENSIONS_OF_LABELS, wanted=nothing, diagnosis=nothing
    )
    return asked, rows.filter(~labelled)


def _request(task: dict[str, Any], arguments: Generation) -> GenerateRequest:
    if task["diagnosis"] is None:
        prompt = arguments.template.render("prompt", prompt=task["prompt"])
    else:
        prompt = arguments.template.render("resample", prompt=task["prompt"], diagnosis=task["diagnosis"])
    seeds = tuple(seed(task["row_id"], arguments.generator, attempt) for attempt in range(arguments.candidates))
    return GenerateRequest(
        instruction=arguments.template.render("instruction"),
        prompt=prompt,
        seeds=seeds,
        sampling=arguments.sampling,
        history=turns(task["history"]),
    )


def generate(prompts: Stage, *, arguments: Generation, model: ModelSpec, part_rows: int | None) -> Stage:
    """Return the stage in which one generator draws candidates, in one round."""
    return Stage(
        name=f"generate_{arguments.round}_{arguments.generator}",
        function=draw_candidates,
        bound=bounds.candidates_drawn,
        arguments=arguments,
        contract=tables.CANDIDATES,
        inputs=(prompts,),
        model=model,
        part_rows=part_rows,
    )
