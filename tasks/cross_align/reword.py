"""A model may reword an explanation, and nothing else: what it writes counts only if it cites the same ids."""

from __future__ import annotations

from typing import Annotated, Any

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each
from normloom.core.models.protocol import GenerateRequest, LanguageModel, Sampling
from normloom.core.rows.ids import seed
from normloom.core.stage import Output
from normloom.schemas.media import meme_tables
from normloom.schemas.template import Template, sections, template_named
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.cross_align.explanations import SLOTS, ids_in

REWORDED = SLOTS[:3]  # the verdict stays as it is
_LONGER = 2  # times that a reworded slot may be as long


class Rewording(Args):
    """How a model rewords explanations."""

    template: Annotated[Template, sections(("instruction", "prompt"))] = template_named("reword")
    sampling: Sampling = Sampling(temperature=0, max_tokens=160)
    part_rows: int = Field(32, ge=1, exclude=True, description="explanations in one part")


@step(makes=meme_tables.EXPLANATIONS, name="reworded", bound=bounds.slots_reworded, fan_out=each())
def reword(rows: pl.DataFrame, args: Rewording, model: LanguageModel, *, writer: str) -> Output:
    """Return the explanations with those slots reworded whose new text cites the same ids, on one line.

    `written_by` is the model if it reworded a slot. What it does not answer stays as it is.
    """
    asked = [(row, slot) for row in rows.iter_rows(named=True) for slot in REWORDED]
    answers = model.generate([_request(row, slot, args) for row, slot in asked])
    taken: dict[str, dict[str, str]] = {}
    for (row, slot), answer in zip(asked, answers, strict=True):
        text = answer.candidates[0].text.strip() if answer.candidates else ""
        if _faithful(text, row[slot], row["meme_id"]):
            taken.setdefault(row["row_id"], {})[slot] = text
    made = [
        {**row, **taken.get(row["row_id"], {}), "written_by": writer if row["row_id"] in taken else row["written_by"]}
        for row in rows.drop("parents").iter_rows(named=True)
    ]
    schema = {"row_id": pl.String(), **meme_tables.EXPLANATIONS.columns}
    return Output(
        rows=pl.DataFrame(made, schema=schema),
        tokens_in=sum(answer.tokens_in for answer in answers),
        tokens_out=sum(one.tokens_out for answer in answers for one in answer.candidates),
        metrics={"slots_asked": float(len(asked)), "slots_reworded": float(sum(map(len, taken.values())))},
    )


def _request(row: dict[str, Any], slot: str, args: Rewording) -> GenerateRequest:
    return GenerateRequest(
        instruction=args.template.render("instruction"),
        prompt=args.template.render("prompt", sentence=row[slot]),
        seeds=(seed(row["row_id"], SLOTS.index(slot)),),
        sampling=args.sampling,
    )


def _faithful(text: str, slot: str, meme_id: str) -> bool:
    """Return whether a text may stand for a slot: other words, the same ids, one line of a like length."""
    one_line = bool(text) and "\n" not in text and len(text) <= _LONGER * len(slot)
    return one_line and text != slot and set(ids_in(text, meme_id)) == set(ids_in(slot, meme_id))
