"""Consistency and entailment by a judge: a language model asked about each sentence of the persona, and the reference.

It stands in for an NLI classifier; every row says in `source` which model was asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each
from normloom.core.models.protocol import LanguageModel, ScoreRequest, Scores
from normloom.core.stage import Output, quarantined_frame, unanswered
from normloom.schemas.template import Template, sections, template_named
from normloom.schemas.training import preference_tables
from normloom.schemas.training.preference_tables import CONSISTENCY, NONE, OK, UTTERANCE_ENTAILMENT
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.preferences.measure import sentences, without_speaker
from normloom.tasks.preferences.replies import signal_rows

SAME, CONTRADICTS, NEITHER = range(3)
LETTERS = ("A", "B", "C")
JUDGED = (CONSISTENCY, UTTERANCE_ENTAILMENT)


class Entailment(Args):
    """How a judge is asked whether a reply says what a sentence says."""

    template: Annotated[Template, sections(("instruction", "context", "question"))] = template_named("entail")
    part_rows: int = Field(64, ge=1, exclude=True, description="replies in one part")


@step(
    makes=preference_tables.SIGNALS,
    name="judged_signals",
    bound=bounds.replies_judged,
    fan_out=each(pl.when(pl.col("parse_status") != NONE).then(len(JUDGED)).otherwise(0), by_part=True),
)
def judge_entailment(
    rows: pl.DataFrame, args: Entailment, prompts: pl.DataFrame, model: LanguageModel, *, judge: str
) -> Output:
    """Return consistency and utterance entailment of each reply; those of one that did not parse are null.

    Consistency is 1 if the likeliest answer about some sentence of the persona is that the reply says the same, else
    -1 if about some it is that it contradicts, else 0. Utterance entailment is 1 if the consistency is 1, and 2 if the
    reply says what the reference says too. A reply that does not fit into the model's context is quarantined.
    """
    scored = rows.filter(pl.col("parse_status") != NONE).select(
        "row_id", "gen_id", "prompt_id", "parse_status", "response"
    )
    told = scored.join(prompts.select("prompt_id", "persona", "reference"), on="prompt_id", maintain_order="left")
    asked = list(told.filter(parse_status=OK).iter_rows(named=True))
    statements = [_statements(row["persona"], row["reference"]) for row in asked]
    answers = model.score(
        [
            ScoreRequest(
                instruction=args.template.render("instruction"),
                context=args.template.render("context", reply=row["response"]),
                questions=tuple(args.template.render("question", statement=text) for text in texts),
                answers=LETTERS,
            )
            for row, texts in zip(asked, statements, strict=True)
        ]
    )
    failures = [unanswered(row, answer) for row, answer in zip(asked, answers, strict=True) if answer.error]
    failed = [failure for failure in failures for _ in JUDGED]
    lost = {failure["row_id"] for failure in failures}
    found = [
        (row["gen_id"], name, value)
        for row, answer in zip(asked, answers, strict=True)
        if not answer.error
        for name, value in zip(JUDGED, _values(answer, has_reference=bool(row["reference"])), strict=True)
    ]
    values = pl.DataFrame(found, schema={"gen_id": pl.String, "signal": pl.String, "value": pl.Float64}, orient="row")
    named = scored.filter(~pl.col("row_id").is_in(list(lost))).join(
        pl.DataFrame({"signal": JUDGED}), how="cross", maintain_order="left"
    )
    made = signal_rows(
        named.join(values, on=("gen_id", "signal"), how="left", maintain_order="left"),
        source=pl.lit(f"asked ({judge})"),
    )
    return Output(
        rows=made.rows,
        quarantined=pl.concat([made.quarantined, quarantined_frame(failed)]),
        tokens_in=sum(answer.tokens_in for answer in answers),
    )


def _statements(persona: str, reference: str | None) -> list[str]:
    """Return the sentences of a persona, and the reference last if there is one."""
    return [*sentences(persona), *([without_speaker(reference)] if reference else [])]


def _values(answer: Scores, *, has_reference: bool) -> tuple[float, float]:
    """Return consistency and utterance entailment."""
    likeliest = [_likeliest(line) for line in answer.logprobs]
    persona, reference = (likeliest[:-1], likeliest[-1]) if has_reference else (likeliest, NEITHER)
    consistency = 1.0 if SAME in persona else -1.0 if CONTRADICTS in persona else 0.0
    if consistency < 1:
        return consistency, 0.0
    return consistency, 2.0 if reference == SAME else 1.0


def _likeliest(logprobs: Sequence[float]) -> int:
    return max(range(len(logprobs)), key=logprobs.__getitem__)
