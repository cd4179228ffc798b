"""Draw candidate responses: K for each prompt and generator, each with a seed of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each
from normloom.core.models.protocol import GenerateRequest, LanguageModel, Sampling
from normloom.core.rows.ids import seed
from normloom.core.stage import Output, dropped_rows, quarantined_frame, unanswered
from normloom.schemas import tables
from normloom.schemas.template import Template, sections, template_named
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.prompts.dialogue import turns

CUT_EMPTY = "cut_empty"  # responses that were cut off at max_tokens before they began
_OF_A_DRAW = ("attempt", "seed", "response", "finish", "tokens_out", "reasoning")
_ASKED = ("prompt_id", "history", "prompt", "targets", "wanted", "diagnosis")
_DRAWN: dict[str, pl.DataType] = {"task": pl.Int64(), **{name: tables.CANDIDATES.columns[name] for name in _OF_A_DRAW}}


class Generation(Args):
    """How candidates are drawn."""

    candidates: int = Field(3, ge=1, description="responses drawn for each prompt by each generator")
    sampling: Sampling = Sampling(max_tokens=512)
    template: Annotated[Template, sections(("instruction", "prompt", "resample"))] = template_named("generate")
    part_rows: int = Field(64, ge=1, exclude=True, description="prompts in one part")


@step(
    makes=tables.CANDIDATES,
    name="generate_{round}_{generator}",
    reads=("labels", "generator", *_ASKED),
    bound=bounds.candidates_drawn,
    fan_out=lambda given: each(_owed(given)),
)
def generate(rows: pl.DataFrame, args: Generation, model: LanguageModel, *, generator: str, round: int = 0) -> Output:
    """Draw the candidates of one generator; a prompt without a label has no target and is dropped.

    In round 0 the rows are prompts; in later rounds they are diagnosed shortfalls, of which those of this generator
    are tried again.
    """
    asked, unlabelled = _asked(rows, generator)
    tasks = asked.select("row_id", *_ASKED)
    completions = model.generate([_request(task, args, generator) for task in tasks.iter_rows(named=True)])
    failed = [
        unanswered(tasks.row(position, named=True), completion)
        for position, completion in enumerate(completions)
        if completion.error is not None
    ]
    drawn = [
        (
            *(position, attempt, candidate.seed, candidate.text.strip(), candidate.finish, candidate.tokens_out),
            candidate.reasoning or None,
        )
        for position, completion in enumerate(completions)
        for attempt, candidate in enumerate(completion.candidates)
    ]
    texts = pl.DataFrame(drawn, schema=_DRAWN, orient="row")
    candidates = pl.concat([tasks[texts["task"].to_list()], texts.drop("task")], how="horizontal").with_columns(
        generator=pl.lit(generator), round=pl.lit(round, dtype=pl.Int32)
    )
    dropped = dropped_rows(unlabelled, reason="no_label", winner=pl.lit(None))
    return Output(
        rows=candidates.select("row_id", *tables.CANDIDATES.columns),
        dropped=dropped,
        quarantined=quarantined_frame(failed),
        tokens_in=sum(completion.tokens_in for completion in completions),
        tokens_out=sum(candidate.tokens_out for completion in completions for candidate in completion.candidates),
        metrics={CUT_EMPTY: float(candidates.filter(response="", finish="length").height)},
    )


def _owed(given: Mapping[str, Any]) -> int | pl.Expr:
    """Return the candidates that a row is owed: in later rounds those of this generator's shortfalls."""
    candidates: int = given["candidates"]
    return pl.when(generator=given["generator"]).then(candidates).otherwise(0) if given["round"] else candidates


def _asked(rows: pl.DataFrame, generator: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return what this generator is asked (prompts, or its own diagnosed shortfalls) and prompts without a label."""
    if "generator" in rows.columns:
        return rows.filter(generator=generator), rows.clear()
    labelled, nothing = pl.col("labels").list.len() > 0, pl.lit(None, dtype=pl.String)
    asked = rows.filter(labelled).with_columns(
        prompt_id="row_id", targets=tables.DIMENSIONS_OF_LABELS, wanted=nothing, diagnosis=nothing
    )
    return asked, rows.filter(~labelled)


def _request(task: dict[str, Any], args: Generation, generator: str) -> GenerateRequest:
    if task["diagnosis"] is None:
        prompt = args.template.render("prompt", prompt=task["prompt"])
    else:
        prompt = args.template.render("resample", prompt=task["prompt"], diagnosis=task["diagnosis"])
    seeds = tuple(seed(task["row_id"], generator, attempt) for attempt in range(args.candidates))
    return GenerateRequest(
        instruction=args.template.render("instruction"),
        prompt=prompt,
        seeds=seeds,
        sampling=args.sampling,
        history=turns(task["history"]),
    )
