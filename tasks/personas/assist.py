"""The assistant: a model says how well a user fits a task, why, and which facts it rests on. A failure is null."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each
from normloom.core.models.protocol import GenerateRequest, LanguageModel, Sampling
from normloom.core.rows.ids import seed
from normloom.core.stage import Output
from normloom.schemas.people import persona_tables
from normloom.schemas.people.persona_tables import BAD_FORMAT, EMPTY, OK
from normloom.schemas.template import Template, sections, template_named
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.answers import answered

_OBJECT = re.compile(r"\{[^{}]*\}", re.DOTALL)


class Assisting(Args):
    """How the assistant is asked."""

    template: Annotated[Template, sections(("instruction", "prompt"))] = template_named("assist")
    sampling: Sampling = Sampling(temperature=0, max_tokens=96)
    facts: int = Field(12, ge=1, description="most facts of a user that it is shown, the first of the table")
    part_rows: int = Field(32, ge=1, exclude=True, description="users in one part")


@step(makes=persona_tables.ASSISTANCE, bound=bounds.cells_written, fan_out=each(), quarantine_budget=1.0)
def assistance(rows: pl.DataFrame, args: Assisting, facts: pl.DataFrame, model: LanguageModel) -> Output:
    """Return the assistant's score (0 to 1), reason and cited facts of each labelled user, null if it cannot be read.

    The assistant never sees a label. A fact that it cites without having been shown it makes the reply `bad_format`.
    """
    known = {str(user): group.head(args.facts) for (user,), group in facts.group_by("username", maintain_order=True)}
    asked = list(rows.iter_rows(named=True))
    completions = model.generate(
        [
            GenerateRequest(
                instruction=args.template.render("instruction"),
                prompt=args.template.render(
                    "prompt", task=row["classification_task"], facts=_numbered(known[row["username"]])
                ),
                seeds=(seed(row["row_id"], "assistance"),),
                sampling=args.sampling,
            )
            for row in asked
        ]
    )
    outcome, made = answered(asked, completions), []
    for row, completion in outcome.pairs:
        shown = known[row["username"]]["row_id"].to_list()
        made.append(
            {
                "row_id": row["row_id"],
                "classification_task": row["classification_task"],
                "username": row["username"],
                "raw_reply": completion.candidates[0].text,
                **parsed(completion.candidates[0].text, shown),
            }
        )
    return outcome.output(pl.DataFrame(made, schema={"row_id": pl.String, **persona_tables.ASSISTANCE.columns}))


def parsed(reply: str, shown: list[str]) -> dict[str, Any]:
    """Return score, reason, the ids of the facts cited, and how the reply could be read.

    `shown` are the ids of the facts that the assistant was shown, in their order. What cannot be read is null.
    """
    nothing: dict[str, Any] = {"score": None, "reason": None, "cited": [], "parse_status": EMPTY}
    if not reply.strip():
        return nothing
    nothing["parse_status"] = BAD_FORMAT
    found = _OBJECT.search(reply)
    try:
        told = json.loads(found[0]) if found else None
    except json.JSONDecodeError:
        return nothing
    if not isinstance(told, dict):
        return nothing
    score, reason, cited = told.get("score"), told.get("reason"), told.get("facts", [])
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        return nothing
    if not isinstance(reason, str) or not isinstance(cited, list):
        return nothing
    if not all(isinstance(one, int) and 1 <= one <= len(shown) for one in cited):
        return nothing
    return {
        "score": float(score),
        "reason": reason.strip(),
        "cited": [shown[one - 1] for one in dict.fromkeys(cited)],
        "parse_status": OK,
    }


def _numbered(facts: pl.DataFrame) -> str:
    told = facts.select("relation", "object").iter_rows()
    return "\n".join(f"{at}. {relation.replace('_', ' ')}: {object_}" for at, (relation, object_) in enumerate(told, 1))
