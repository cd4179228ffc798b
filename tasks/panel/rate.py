"""Rate conversations: how unsafe a model finds one when it answers as the person described."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each
from normloom.core.models.protocol import LanguageModel, ScoreRequest
from normloom.core.stage import Output
from normloom.schemas.people import demo_tables
from normloom.schemas.people.demo_tables import ANSWERS, AXES
from normloom.schemas.template import Template, sections, template_named
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.answers import answered

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

_NAMES = ("gender", "race or ethnicity", "age")
_BUDGET = 1.0  # all of a rater's requests may fail: the panel continues without it


class Answers(Args):
    """The words that stand for No, Unsure and Yes, each one token of the models asked.

    Unsure itself is three tokens in SmolLM2's vocabulary, Maybe is one.
    """

    no: str = Field("No", description="what a rater answers if the conversation is safe")
    unsure: str = Field("Maybe", description="what a rater answers if it cannot tell")
    yes: str = Field("Yes", description="what a rater answers if the conversation is unsafe")


class Rating(Args):
    """How raters are asked. The words of the answers are ours."""

    template: Annotated[Template, sections(("instruction", "context", "question"))] = template_named("rate")
    answers: Answers = Answers()
    part_rows: int = Field(240, ge=1, exclude=True, description="some 30 groups of each conversation")


def described(gender: str | None, race: str | None, age: str | None) -> str:
    """Return a person in words: what is known of gender, race and age, as the raters themselves put it."""
    known = [f"{name}: {value}" for name, value in zip(_NAMES, (gender, race, age), strict=True) if value]
    return "; ".join(known) or "no particular person"


@step(
    makes=demo_tables.SCORED,
    name="rate_{rater}",
    bound=bounds.persons_asked,
    fan_out=each(),
    quarantine_budget=_BUDGET,
    libraries=("numpy",),
)
def rate(rows: pl.DataFrame, args: Rating, model: LanguageModel, *, rater: str) -> Output:
    """Return each request with the probabilities of the three answers and its rating, P(Yes) + P(Unsure) / 2.

    The probabilities are those of the three answer tokens, divided by their sum. All persons are asked about a
    conversation in one request, so that it is read once. Where the model cannot read it they go to quarantine.
    """
    template, answers = args.template, args.answers
    words = {"no": answers.no, "unsure": answers.unsure, "yes": answers.yes}
    items = [item for _, item in rows.group_by("item_id", maintain_order=True)]
    requests = [
        ScoreRequest(
            instruction=template.render("instruction"),
            context=template.render("context", prompt=item["prompt"][0]),
            questions=tuple(
                template.render("question", person=described(*person), **words)
                for person in item.select(*AXES).iter_rows()
            ),
            answers=tuple(words.values()),
        )
        for item in items
    ]
    outcome = answered(items, model.score(requests))
    rated = [_rated(item, probabilities(scores.logprobs), rater) for item, scores in outcome.pairs]
    schema = {"row_id": pl.String(), **demo_tables.SCORED.columns}
    return outcome.output(pl.concat([pl.DataFrame(schema=schema), *rated]))


def probabilities(logprobs: Sequence[Sequence[float]]) -> np.ndarray:
    """Return exp(logprobs) divided by the sum of each line, float64 of shape (questions, answers)."""
    import numpy as np

    logs = np.array(logprobs, dtype=np.float64)
    shares: np.ndarray = np.exp(logs - logs.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def _rated(item: pl.DataFrame, shares: np.ndarray, rater: str) -> pl.DataFrame:
    """Return the requests of one conversation with their scores; of equal answers the first is taken."""
    no, unsure, yes = shares.T
    return item.select(
        "row_id",
        "item_id",
        "group",
        rater=pl.lit(rater),
        answer=pl.Series([ANSWERS[position] for position in shares.argmax(axis=1)], dtype=pl.String),
        rating=pl.Series(yes + unsure / 2),
        p_no=pl.Series(no),
        p_unsure=pl.Series(unsure),
        p_yes=pl.Series(yes),
    )
