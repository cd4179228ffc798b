"""A judge compares each reply with a reference reply, in both orders; who changes their mind makes a draw."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each, free
from normloom.core.models.protocol import GenerateRequest, LanguageModel, Sampling, ScoreRequest
from normloom.core.rows.ids import seed
from normloom.core.stage import Output, dropped_rows, quarantined_frame, unanswered
from normloom.schemas import tables
from normloom.schemas.template import Template, sections, template_named
from normloom.schemas.training import alignx_tables
from normloom.schemas.training.alignx_tables import (
    BAD_FORMAT,
    EMPTY,
    OK,
    REFERENCE_FIRST,
    REFUSED,
    REPLY_FIRST,
    WIN,
    WORST,
)
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.prompts.dialogue import transcript
from normloom.tasks.tradeoff.phrases import count_words, refuses

LETTERS = ("A", "B")
ORDERS = (REPLY_FIRST, REFERENCE_FIRST)
_VERDICT = re.compile(r"\b(?:[Aa]\s+)?((?i:tie|draw|equal|both))\b|\b([ABb]|a(?!\s+\w))\b")  # an article is no vote


class Comparing(Args):
    """How a judge is asked which of two replies is better."""

    template: Annotated[Template, sections(("instruction", "context", "question"))] = template_named("compare")
    by: Literal["scored", "written"] = Field(
        "scored", description="the likelier letter, so that no reply fails, or what the judge writes"
    )
    axes: tuple[str, ...] = Field((), description="axes whose replies are compared; none: all that have a reference")
    sampling: Sampling = Sampling(temperature=0, max_tokens=8)
    part_rows: int = Field(64, ge=1, exclude=True, description="replies in one part")


@step(makes=alignx_tables.COMPARED, name="compare_{judge}", bound=bounds.replies_compared, fan_out=each(len(ORDERS)))
def compare(
    rows: pl.DataFrame, args: Comparing, axis_rows: pl.DataFrame, model: LanguageModel, *, judge: str
) -> Output:
    """Return what a judge says of each reply and the first good reply of its prompt, in both orders.

    Replies to prompts without one, and of axes that are not compared, are dropped. A pair that does not fit into the
    model's context is quarantined.
    """
    known = axis_rows.select("history", prompt_id="row_id", reference=pl.col("reference").list.first())
    told = rows.join(known, on="prompt_id", how="left", maintain_order="left")
    wanted = pl.col("axis").is_in(args.axes or axis_rows["axis"].unique().to_list())
    asked = list(told.filter(wanted & pl.col("reference").is_not_null()).iter_rows(named=True))
    made, failed, tokens_in, tokens_out = [], [], 0, 0
    for row, said, counted, error in (_scored if args.by == "scored" else _written)(asked, args, model, judge):
        tokens_in, tokens_out = tokens_in + counted[0], tokens_out + counted[1]
        if error is not None:
            failed.append(error)
            continue
        made += [
            {
                **{name: row[name] for name in ("row_id", "prompt_id", "system", "axis")},
                "judge": judge,
                "order": order,
                "raw_reply": raw,
                "words": count_words(row["raw_reply"]),
                "reference_words": count_words(row["reference"]),
            }
            for order, raw in zip(ORDERS, said, strict=True)
        ]
    left = told.filter(~pl.col("row_id").is_in([row["row_id"] for row in asked]))
    reason = pl.when(wanted).then(pl.lit("no reference")).otherwise(pl.lit("axis not compared"))
    return Output(
        rows=pl.DataFrame(made, schema={"row_id": pl.String(), **alignx_tables.COMPARED.columns}),
        dropped=dropped_rows(left, reason=reason, leaving_out=("history", "reference")),
        quarantined=quarantined_frame(failed),
        attempts=len(made) + left.height + len(failed),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
    )


Said = tuple[dict[str, Any], list[str], tuple[int, int], dict[str, str | None] | None]


def _scored(asked: list[dict[str, Any]], args: Comparing, model: LanguageModel, _: str) -> Iterator[Said]:
    """Yield the likelier letter in both orders, which are asked in one request."""
    requests = [
        ScoreRequest(
            instruction=args.template.render("instruction"),
            context=args.template.render("context", prompt=transcript(row["history"], row["prompt"])),
            questions=tuple(_question(row, order, args) for order in ORDERS),
            answers=LETTERS,
        )
        for row in asked
    ]
    for row, scores in zip(asked, model.score(requests), strict=True):
        error = None if scores.error is None else unanswered(row, scores)
        yield row, [LETTERS[b > a] for a, b in scores.logprobs], (scores.tokens_in, 0), error


def _written(asked: list[dict[str, Any]], args: Comparing, model: LanguageModel, judge: str) -> Iterator[Said]:
    """Yield what the judge writes in both orders."""
    requests = [
        GenerateRequest(
            instruction=args.template.render("instruction"),
            prompt="\n\n".join(
                (
                    args.template.render("context", prompt=transcript(row["history"], row["prompt"])),
                    _question(row, order, args),
                )
            ),
            seeds=(seed(row["row_id"], judge, order),),
            sampling=args.sampling,
        )
        for row in asked
        for order in ORDERS
    ]
    completions = iter(model.generate(requests))
    for row in asked:
        both = [next(completions) for _ in ORDERS]
        failed = next((one for one in both if one.error is not None), None)
        drafts = [draft for one in both for draft in one.candidates]
        tokens = sum(one.tokens_in for one in both), sum(draft.tokens_out for draft in drafts)
        yield row, [draft.text for draft in drafts], tokens, unanswered(row, failed) if failed else None


def _question(row: Mapping[str, Any], order: str, args: Comparing) -> str:
    first, second = row["raw_reply"], row["reference"]
    if order == REFERENCE_FIRST:
        first, second = second, first
    return args.template.render("question", first=first, second=second)


@step(makes=alignx_tables.JUDGED, name="judged_{judge}", fan_out=free("one row for both orders"))
def judge_wins(rows: pl.DataFrame, *, judge: str) -> Output:
    """Return of each reply whether it wins: 1 if the judge prefers it in both orders, 0 if in none, else a draw (0.5).

    A reply of the judge that names no letter fails, and with it the judgement: its value is null.
    """
    made = []
    for (prompt, system), both in rows.group_by("prompt_id", "system", maintain_order=True):
        said = [parsed(raw, order) for raw, order in both.select("raw_reply", "order").iter_rows()]
        failures = [status for status, _ in said if status != OK]
        votes = [vote for _, vote in said if vote is not None]
        value = votes[0] if len(set(votes)) == 1 else 0.5
        row = both.row(0, named=True)
        made.append(
            {
                "parents": both["row_id"].to_list(),
                "content": f"{prompt}\x1f{system}",
                **{name: row[name] for name in ("prompt_id", "axis", "system", "words", "reference_words")},
                "measure": WIN,
                "judge": judge,
                "value": None if failures or len(votes) < len(ORDERS) else value,
                "worst": WORST[WIN],
                "parse_status": failures[0] if failures else OK,
            }
        )
    return Output(rows=pl.DataFrame(made, schema=tables.named_by_content(alignx_tables.JUDGED)), attempts=len(made))


def parsed(raw: str, order: str) -> tuple[str, float | None]:
    """Return the parse status of a judge's raw reply, and its vote for the reply that is judged: 1, 0, or 0.5."""
    if not raw.strip():
        return EMPTY, None
    found = _VERDICT.search(raw)
    if found is None:
        return (REFUSED if refuses(raw) else BAD_FORMAT), None
    if found[1]:
        return OK, 0.5
    return OK, float((found[2].upper() == LETTERS[0]) == (order == REPLY_FIRST))
