"""Draw candidate responses: K for each prompt and generator, each with a seed of its own."""

from __future__ import annotations

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from normloom.models.protocol import GenerateRequest, LanguageModel, ModelSpec, Sampling
from normloom.rows import seed
from normloom.stage import Output, Stage, dropped, dropped_frame, quarantined, quarantined_frame
from schemas import tables
from schemas.template import Template


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
    tasks, unlabelled = [], []
    for row in rows.iter_rows(named=True):
        if "generator" in row:
            if row["generator"] == arguments.generator:
                tasks.append(row)
        elif row["labels"]:
            targets = dict.fromkeys(label["dimension"] for label in row["labels"])
            tasks.append(
                {**row, "prompt_id": row["row_id"], "targets": list(targets), "wanted": None, "diagnosis": None}
            )
        else:
            unlabelled.append(dropped(row, "no_label"))
    completions = model.generate([_request(task, arguments) for task in tasks])
    drawn, failed = [], []
    for task, completion in zip(tasks, completions, strict=True):
        if completion.error is not None:
            failed.append(quarantined(task, "model", completion.error))
        for attempt, candidate in enumerate(completion.candidates):
            drawn.append(
                {
                    "row_id": task["row_id"],
                    "prompt_id": task["prompt_id"],
                    "prompt": task["prompt"],
                    "targets": task["targets"],
                    "generator": arguments.generator,
                    "round": arguments.round,
                    "wanted": task["wanted"],
                    "diagnosis": task["diagnosis"],
                    "attempt": attempt,
                    "seed": candidate.seed,
                    "response": candidate.text.strip(),
                    "finish": candidate.finish,
                    "tokens_out": candidate.tokens_out,
                }
            )
    return Output(
        rows=pl.DataFrame(drawn, schema={"row_id": pl.String, **tables.CANDIDATES.columns}),
        dropped=dropped_frame(unlabelled),
        quarantined=quarantined_frame(failed),
        attempts=len(drawn) + len(unlabelled) + len(failed),
        tokens_in=sum(completion.tokens_in for completion in completions),
        tokens_out=sum(candidate["tokens_out"] for candidate in drawn),
    )


def _request(task: dict[str, str], arguments: Generation) -> GenerateRequest:
    if task["diagnosis"] is None:
        prompt = arguments.template.render("prompt", prompt=task["prompt"])
    else:
        prompt = arguments.template.render("resample", prompt=task["prompt"], diagnosis=task["diagnosis"])
    seeds = tuple(seed(task["row_id"], arguments.generator, attempt) for attempt in range(arguments.candidates))
    return GenerateRequest(
        instruction=arguments.template.render("instruction"), prompt=prompt, seeds=seeds, sampling=arguments.sampling
    )


def generate(prompts: Stage, *, arguments: Generation, model: ModelSpec, part_rows: int | None) -> Stage:
    """Return the stage in which one generator draws candidates, in one round."""
    return Stage(
        name=f"generate_{arguments.round}_{arguments.generator}",
        function=draw_candidates,
        arguments=arguments,
        contract=tables.CANDIDATES,
        inputs=(prompts,),
        model=model,
        part_rows=part_rows,
    )
