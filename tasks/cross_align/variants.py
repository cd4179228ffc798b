"""Three texts of a meme: plain, with its own facts, and with those of another meme."""

from __future__ import annotations

import hashlib

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.media import meme_tables
from normloom.schemas.media.meme_tables import ENRICHED, PLAIN, SHUFFLED
from normloom.steps.step import step
from normloom.tasks.knowledge.facts import enriched


@step(makes=meme_tables.VARIANT_TEXTS, fan_out=free("a plain text of each meme, two more of those with facts"))
def variants(rows: pl.DataFrame, facts: pl.DataFrame) -> Output:
    """Return the texts of each meme by variant; a meme without facts has its plain text only.

    The control gives each meme with facts those of the next one of its task and split, in an order that knows nothing
    of labels, whose facts are others: what it says is knowledge, but not of this meme.
    """
    told = _told(facts)
    donors = _donors(rows, told)
    made = []
    for meme in rows.iter_rows(named=True):
        name, text = meme["meme_id"], meme["text"]
        texts: dict[str, tuple[str, str | None]] = {PLAIN: (text, None)}
        if name in told:
            texts[ENRICHED] = (enriched(text, told[name]), None)
            donor = donors[name]
            texts[SHUFFLED] = (enriched(text, told[donor]), donor)
        made += [
            {
                "parents": [meme["row_id"]],
                "content": variant,
                "item_id": f"{name}:{variant}",
                "meme_id": name,
                "variant": variant,
                "text": said,
                "donor": donor,
            }
            for variant, (said, donor) in texts.items()
        ]
    frame = pl.DataFrame(made, schema=tables.named_by_content(meme_tables.VARIANT_TEXTS))
    return Output(rows=frame, attempts=frame.height)


def vectors_of(memes: pl.Series, vectors: pl.DataFrame, variant: str) -> pl.Series:
    """Return the vector of each meme in a variant, that of its plain text if the variant has none."""
    given = dict(vectors.select("item_id", "vector").iter_rows())
    found = [given.get(f"{meme}:{variant}", given.get(f"{meme}:{PLAIN}")) for meme in memes]
    return pl.Series("vector", found, dtype=pl.List(pl.Float32))


def _told(facts: pl.DataFrame) -> dict[str, list[str]]:
    by_meme = facts.group_by("meme_id", maintain_order=True).agg("sentence")
    return dict(by_meme.iter_rows())


def _donors(rows: pl.DataFrame, told: dict[str, list[str]]) -> dict[str, str]:
    """Return whose facts each meme is given; its own if no other meme of its task and split has other ones."""
    found: dict[str, str] = {}
    having = rows.filter(pl.col("meme_id").is_in(list(told)))
    for _, group in having.group_by("task", "split", maintain_order=True):
        order = sorted(group["meme_id"], key=_place)
        for place, meme in enumerate(order):
            ring = order[place + 1 :] + order[:place]
            found[meme] = next((other for other in ring if told[other] != told[meme]), meme)
    return found


def _place(meme: str) -> bytes:
    return hashlib.blake2b(f"donor:{meme}".encode(), digest_size=8).digest()
