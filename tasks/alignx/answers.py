"""Which prompts are answered, and the replies of one system to them."""

from __future__ import annotations

import hashlib

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each
from normloom.core.models.protocol import GenerateRequest, LanguageModel, Sampling, Turn
from normloom.core.rows.ids import seed
from normloom.core.stage import Output, dropped_rows
from normloom.schemas.training import alignx_tables, routing_tables
from normloom.schemas.training.alignx_tables import TEST
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.answers import answered


class Asked(Args):
    """Which test prompts the systems answer."""

    per_axis: int | None = Field(None, ge=1, description="test prompts of each axis, drawn by a hash; null: all")


class Answering(Args):
    """How the systems answer, all alike."""

    sampling: Sampling = Sampling(temperature=0, top_p=1, max_tokens=256)
    part_rows: int = Field(32, ge=1, exclude=True, description="prompts in one part")


class Answers(Asked, Answering):
    """Which test prompts the systems answer, and how."""


@step(makes=routing_tables.ASKED, fan_out=each())
def asked(rows: pl.DataFrame, args: Asked) -> Output:
    """Return the test prompts that are answered; others are dropped as `not_test` or `limit`."""
    order = [hashlib.blake2b(prompt.encode(), digest_size=8).digest() for prompt in rows["prompt"]]
    test = pl.col("split") == TEST
    ranked = rows.with_columns(_order=pl.Series(order)).with_columns(
        _rank=pl.when(test).then(pl.col("_order")).rank("ordinal").over("axis")
    )
    taken = ranked["_rank"].is_not_null() & (ranked["_rank"] <= (args.per_axis or rows.height))
    reason = pl.when(test).then(pl.lit("limit")).otherwise(pl.lit("not_test"))
    return Output(
        rows=rows.filter(taken).select("row_id", "axis", "history", "prompt", prompt_id="row_id"),
        dropped=dropped_rows(rows.filter(~taken), reason=reason),
    )


@step(makes=alignx_tables.SYSTEM_REPLIES, name="replies_{system}", bound=bounds.replies_of_systems, fan_out=each())
def answer(rows: pl.DataFrame, args: Answering, model: LanguageModel, *, system: str) -> Output:
    """Return the reply of a system to each prompt."""
    given = list(rows.iter_rows(named=True))
    completions = model.generate(
        [
            GenerateRequest(
                instruction="\n\n".join(turn["content"] for turn in row["history"] or () if turn["role"] == "system"),
                prompt=row["prompt"],
                history=tuple(
                    Turn(turn["role"], turn["content"]) for turn in row["history"] or () if turn["role"] != "system"
                ),
                seeds=(seed(row["prompt_id"]),),
                sampling=args.sampling,
            )
            for row in given
        ]
    )
    outcome = answered(given, completions)
    made = [
        {
            "row_id": row["row_id"],
            "prompt_id": row["prompt_id"],
            "system": system,
            "axis": row["axis"],
            "prompt": row["prompt"],
            "raw_reply": completion.candidates[0].text,
        }
        for row, completion in outcome.pairs
    ]
    return outcome.output(pl.DataFrame(made, schema={"row_id": pl.String, **alignx_tables.SYSTEM_REPLIES.columns}))
