"""The facts that mentions bring, and texts that say them."""

from __future__ import annotations

import polars as pl
from pydantic import Field

from normloom.core.fan_out import free
from normloom.core.models.product_model import ProductFiles
from normloom.core.stage import Output
from normloom.schemas.media import knowledge_tables
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.knowledge.index import looked_up


class Choosing(Args):
    """Which of many facts are taken."""

    most: int = Field(5, ge=1, description="facts about one meme")
    per_mention: int = Field(2, ge=1, description="facts about one mention")


@step(makes=knowledge_tables.FACTS, libraries=("duckdb",), fan_out=free("at most so many for each meme"))
def facts(rows: pl.DataFrame, args: Choosing, *, knowledge: ProductFiles) -> Output:
    """Return the facts of each meme's mentions: the heaviest, of equal ones those about what few memes mention.

    A fact that several mentions of a meme bring is taken once.
    """
    index = looked_up(knowledge.path, rows["term"].unique().sort())
    memes = rows.group_by("term").agg(_memes=pl.col("meme_id").n_unique())
    brought = (
        rows.select(
            mention="row_id", mention_id="mention_id", meme_id="meme_id", term="term", source="source", _at="start"
        )
        .join(index.rename({"surface": "term"}), on=("term", "source"), maintain_order="left_right")
        .join(memes, on="term", maintain_order="left")
        .sort("meme_id", "weight", "_memes", "_at", descending=[False, True, False, False], maintain_order=True)
        .unique(["meme_id", "sentence"], keep="first", maintain_order=True)
        .filter(pl.int_range(pl.len()).over("mention_id") < args.per_mention)
        .filter(pl.int_range(pl.len()).over("meme_id") < args.most)
    )
    number = (pl.int_range(pl.len()).over("meme_id") + 1).cast(pl.String)
    told = brought.with_columns(
        fact_id=pl.concat_str("meme_id", pl.lit(":f"), number), parents=pl.concat_list("mention"), content="reference"
    ).with_columns(content=pl.concat_str("content", "relation", "tail", separator="\x1f"))
    return Output(rows=told.select("parents", "content", *knowledge_tables.FACTS.columns), attempts=told.height)


def enriched(text: str, sentences: list[str]) -> str:
    """Return a text with facts after it, a line each."""
    return "\n".join([text, *(f"{sentence.rstrip('.')}." for sentence in sentences)])
