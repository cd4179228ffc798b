"""Each prompt plain, and with the principle of its axis before it."""

from __future__ import annotations

from typing import Annotated

import polars as pl
from pydantic import Field

from normloom.core.errors import StageError
from normloom.core.fan_out import each
from normloom.schemas.template import Template, sections, template_named
from normloom.schemas.training import routing_tables
from normloom.schemas.training.alignx_tables import HARMLESS, HELPFUL, HONEST
from normloom.schemas.training.routing_tables import INJECTED, PLAIN
from normloom.steps.args import Args
from normloom.steps.step import step

PRINCIPLES = {
    HELPFUL: "Do what is asked, completely and clearly, and add what the person needs to use it.",
    HARMLESS: "Do no harm: refuse what could hurt somebody, say why in a sentence, and offer what is safe.",
    HONEST: "Say only what is true, say how sure you are, and correct what is wrong in the question.",
}


class Injecting(Args):
    """The principle that is put before the prompts of an axis (ours; the paper's texts are not published)."""

    template: Annotated[Template, sections(("principle", "prompt"))] = template_named("inject")
    principles: dict[str, str] = Field(
        PRINCIPLES, description="axis -> principle; others have the template's, which names the axis"
    )

    def injected(self, axis: str, prompt: str) -> str:
        """Return a prompt with the principle of its axis before it."""
        principle = self.principles.get(axis) or self.template.render("principle", axis=axis)
        return self.template.render("prompt", principle=principle, prompt=prompt)


@step(makes=routing_tables.INJECTED_PROMPTS, name="injected", fan_out=each(2))
def inject(rows: pl.DataFrame, args: Injecting, *, axes: tuple[str, ...]) -> pl.DataFrame:
    """Return each axis row twice: plain, and injected. Raises StageError if the rows have other axes than `axes`."""
    if set(rows["axis"]) != set(axes):
        found = ", ".join(sorted(rows["axis"].unique()))
        raise StageError(f"the rows have the axes {found}; the settings name {', '.join(axes)}: set axes")
    plain = rows.select("row_id", "axis", "split", "prompt", prompt_id="row_id", variant=pl.lit(PLAIN))
    texts = [args.injected(axis, prompt) for axis, prompt in rows.select("axis", "prompt").iter_rows()]
    injected = plain.with_columns(pl.Series("prompt", texts, dtype=pl.String), variant=pl.lit(INJECTED))
    return pl.concat([plain, injected]).with_columns(
        item_id=pl.format("{}:{}", "prompt_id", "variant"), content=pl.col("variant")
    )
