"""Replies to persona prompts: drawn from a model, or read from a file with the signals that were released with them."""

from __future__ import annotations

import time
from typing import Annotated, Any

import polars as pl
from pydantic import Field

from normloom.core.errors import SourceError
from normloom.core.fan_out import each, free
from normloom.core.models.protocol import GenerateRequest, LanguageModel, Sampling
from normloom.core.rows.ids import seed
from normloom.core.stage import Output, quarantined, quarantined_frame
from normloom.readers import LIBRARIES, Located, read_source
from normloom.schemas.template import Template, sections, template_named
from normloom.schemas.training import preference_tables
from normloom.schemas.training.preference_tables import BOUNDS, MEASURED, NONE, OK, TRAIN, WORST
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.answers import answered
from normloom.tasks.records import fault

RELEASED = "released"
REPLY = ("gen_id", "prompt_id", "model", "raw_reply")


class AskingReply(Args):
    """How a model is asked for the next turn of a dialogue: the persona, the context, and the JSON that is wanted."""

    template: Annotated[Template, sections(("instruction", "prompt"))] = template_named("persona")
    context_turns: int | None = Field(None, ge=1, description="last turns of the context that are shown; null: all")

    def messages(self, prompt: dict[str, Any]) -> list[dict[str, str]]:
        """Return what a model is asked as messages of system and user."""
        return [
            {"role": "system", "content": self.template.render("instruction")},
            {"role": "user", "content": self.asked(prompt)},
        ]

    def asked(self, prompt: dict[str, Any]) -> str:
        """Return the text of the prompt."""
        turns = str(prompt["context"]).split("\n")
        shown = "\n".join(turns[-self.context_turns :] if self.context_turns else turns)
        return self.template.render("prompt", persona=prompt["persona"], context=shown)


class Replying(AskingReply):
    """How replies are drawn. The paper's are greedy, one a model."""

    sampling: Sampling = Sampling(temperature=0, top_p=1, max_tokens=110)
    replies: int = Field(1, ge=1, description="replies drawn for each prompt by each model")
    part_rows: int = Field(32, ge=1, exclude=True, description="prompts in one part")


@step(
    makes=preference_tables.REPLIES,
    name="reply_{generator}",
    bound=bounds.persona_replies,
    fan_out=lambda given: each(pl.when(split=given["split"]).then(given["replies"]).otherwise(0)),
)
def reply(rows: pl.DataFrame, args: Replying, model: LanguageModel, *, generator: str, split: str = TRAIN) -> Output:
    """Return the raw replies of one model to the prompts of a split.

    `seconds` are the part's, shared out evenly: replies of a batch are made side by side.
    """
    asked = list(rows.filter(split=split).iter_rows(named=True))
    started = time.monotonic()
    completions = model.generate(
        [
            GenerateRequest(
                instruction=args.template.render("instruction"),
                prompt=args.asked(prompt),
                seeds=tuple(seed(prompt["prompt_id"], generator, number) for number in range(args.replies)),
                sampling=args.sampling,
            )
            for prompt in asked
        ]
    )
    seconds = (time.monotonic() - started) / max(len(asked) * args.replies, 1)
    outcome = answered(asked, completions)
    drawn = [
        {
            "row_id": prompt["row_id"],
            "gen_id": f"{generator}:{prompt['prompt_id']}:{number}",
            "prompt_id": prompt["prompt_id"],
            "dialogue": prompt["dialogue"],
            "model": generator,
            "raw_reply": candidate.text,
            "seconds": seconds,
        }
        for prompt, completion in outcome.pairs
        for number, candidate in enumerate(completion.candidates)
    ]
    return outcome.output(pl.DataFrame(drawn, schema={"row_id": pl.String, **preference_tables.REPLIES.columns}))


@step(
    makes=preference_tables.REPLIES,
    name="replies",
    libraries=LIBRARIES,
    fan_out=free("as many replies as the file has to a prompt"),
)
def read_replies(rows: pl.DataFrame, *, source: Located, limited: bool) -> Output:
    """Return the replies of a file to the training prompts.

    A reply to a prompt that is not one of them is quarantined as `unknown_prompt`; if only some prompts were taken
    (`limited`), it is left alone. Further rules: `missing` for a record without an id, model or reply, `repeated_id`.
    """
    read = read_source(source, text_column=None, keep=REPLY, optional=("seconds",))
    seconds = read.numbers("seconds") if "seconds" in read.rows.columns else pl.lit(None, dtype=pl.Float64)
    records = read.rows.with_columns(*(read.names(name) for name in REPLY[:3]), read.text("raw_reply"), seconds=seconds)
    prompts = rows.filter(split=TRAIN).select("prompt_id", "dialogue", "row_id")
    known = records.join(prompts, on="prompt_id", how="left", maintain_order="left")
    if limited:
        known = known.filter(pl.col("row_id").is_not_null() | pl.col("prompt_id").is_null())
    missing = pl.any_horizontal(pl.col(name).is_null() for name in REPLY)
    rule = (
        pl.when(missing)
        .then(pl.lit("missing"))
        .when(~pl.col("gen_id").is_first_distinct())
        .then(pl.lit("repeated_id"))
        .when(pl.col("row_id").is_null())
        .then(pl.lit("unknown_prompt"))
    )
    judged = known.with_columns(rule=rule)
    faults = [
        fault(row, row.pop("rule"), _reason(row))
        for row in judged.filter(pl.col("rule").is_not_null()).iter_rows(named=True)
    ]
    usable = judged.filter(pl.col("rule").is_null())
    if usable.is_empty():
        raise SourceError(
            f"{source.name}: none of {records.height} replies belongs to one of {rows.height} prompts: "
            "set source.prompts to the prompts that they answer"
        )
    return Output(
        rows=usable.select(*preference_tables.REPLIES.columns, parents=pl.concat_list("row_id"), content="gen_id"),
        quarantined=quarantined_frame([*faults, *read.entries]),
        attempts=judged.height + len(read.rejected),
    )


def _reason(row: dict[str, Any]) -> str:
    if absent := [name for name in REPLY if row[name] is None]:
        return f"column {absent[0]!r} has no value"
    return f"gen_id {row['gen_id']!r} of prompt {row['prompt_id']!r}"


@step(
    makes=preference_tables.SIGNALS,
    name="signals",
    libraries=LIBRARIES,
    fan_out=each(pl.when(pl.col("parse_status") != NONE).then(len(MEASURED)).otherwise(0), by_part=True),
)
def released_signals(rows: pl.DataFrame, *, source: Located) -> Output:
    """Return the signals that a file has for its replies, one row each; those of a reply that did not parse are null.

    A value outside the signal's range, or missing for a reply that parsed, is quarantined as `out_of_range`.
    """
    read = read_source(source, text_column=None, keep=("gen_id", *MEASURED))
    told = read.rows.with_columns(read.names("gen_id"), *(read.numbers(name) for name in MEASURED))
    first = told.unique("gen_id", keep="first", maintain_order=True)
    values = first.unpivot(MEASURED, index="gen_id", variable_name="signal", value_name="value")
    scored = rows.filter(pl.col("parse_status") != NONE).select("row_id", "gen_id", "parse_status")
    named = scored.join(pl.DataFrame({"signal": MEASURED}), how="cross", maintain_order="left")
    scores = named.join(values, on=("gen_id", "signal"), how="left", maintain_order="left")
    return signal_rows(scores.with_columns(value=pl.when(parse_status=OK).then("value")), source=pl.lit(RELEASED))


def signal_rows(told: pl.DataFrame, *, source: pl.Expr) -> Output:
    """Return rows of signals with the range of each, from row_id, gen_id, parse_status, signal and value."""
    limits = [{"signal": name, "low": low, "high": high, "worst": WORST[name]} for name, (low, high) in BOUNDS.items()]
    known = told.join(pl.DataFrame(limits), on="signal", how="left", maintain_order="left").with_columns(
        source=source, bonus=pl.col("bonus") if "bonus" in told.columns else pl.lit(None, dtype=pl.Boolean)
    )
    wrong = (pl.col("parse_status") == OK) & ~pl.col("value").is_between("low", "high").fill_null(value=False)
    faults = [
        quarantined(
            row, "out_of_range", f"{row['signal']} {_told(row['value'])}, expected {row['low']} to {row['high']}"
        )
        for row in known.filter(wrong).iter_rows(named=True)
    ]
    return Output(
        rows=known.filter(~wrong).select("row_id", *preference_tables.SIGNALS.columns),
        quarantined=quarantined_frame(faults),
    )


def _told(value: float | None) -> str:
    return "has no number" if value is None else f"is {value}"
