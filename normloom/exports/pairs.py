"""Preferences in the formats that TRL's trainers read; the chat template is left to the trainer.

`explicit`: prompt, chosen and rejected as texts. `conversational`: the same three as messages. `kto`: prompt and
completion as messages, and a label that says whether the completion is desired.
https://huggingface.co/docs/trl/dataset_formats
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import polars as pl

from normloom.core.errors import UsageError
from normloom.exports.tables import Shown
from normloom.schemas.tables import MESSAGES
from normloom.store.store import Store

PreferenceForm = Literal["conversational", "explicit", "kto"]

ALIGNED = ("prompt_id", "messages", "response", "alignment")
PAIRED = ("prompt", "chosen", "rejected")
_EXTRA = ("split", "weight", "margin")  # columns that pairs keep if their table has them


def has_preferences(columns: Iterator[str] | list[str]) -> bool:
    """Return whether pairs can be made of a table with these columns."""
    there = set(columns)
    return there.issuperset(ALIGNED) or there.issuperset(PAIRED)


def preferences(store: Store, shown: Shown, form: PreferenceForm) -> Shown:
    """Return the preferences of a released table in one of TRL's formats.

    Of aligned and misaligned responses every aligned one is paired with every misaligned one to the same prompt; pairs
    whose texts are equal are left out. Raises UsageError for a table without responses or pairs, if nothing can be
    paired, and for `explicit` if a prompt has turns before it, which are no text without a chat template.
    """
    if not has_preferences(list(shown.schema)):
        raise UsageError(
            f"no preferences in {shown.ref.system}/{shown.ref.stage}: expected the columns {', '.join(ALIGNED)}, or "
            f"{', '.join(PAIRED)}; choose another released table with --table"
        )
    rows = store.scan(shown.ref).collect()
    made = _unpaired(rows) if form == "kto" else _pairs(rows)
    if form == "explicit":
        made = _as_texts(made, shown)
    if made.is_empty():
        raise UsageError(
            f"no pairs in {shown.ref.system}/{shown.ref.stage}: no prompt has both an aligned and a misaligned response"
        )
    return Shown(name=shown.name, ref=shown.ref, schema=dict(made.schema), frames=lambda: iter([made]))


def _pairs(rows: pl.DataFrame) -> pl.DataFrame:
    """Return prompt, chosen and rejected as messages, with ids of where they came from."""
    if set(PAIRED) <= set(rows.columns):
        kept = [name for name in ("row_id", "prompt_id", "chosen_id", "rejected_id", *_EXTRA) if name in rows.columns]
        return rows.select(*PAIRED, *kept)
    sides = {
        side: rows.filter(alignment=alignment).select(
            "prompt_id", "messages", *_there(rows), pl.col("row_id").alias(f"{side}_id"), pl.col("response").alias(side)
        )
        for side, alignment in (("chosen", "aligned"), ("rejected", "misaligned"))
    }
    paired = sides["chosen"].join(
        sides["rejected"].select("prompt_id", "rejected_id", "rejected"), on="prompt_id", maintain_order="left_right"
    )
    return paired.filter(pl.col("chosen") != pl.col("rejected")).select(
        _asked().alias("prompt"),
        _said("chosen"),
        _said("rejected"),
        "prompt_id",
        "chosen_id",
        "rejected_id",
        *_there(rows),
    )


def _unpaired(rows: pl.DataFrame) -> pl.DataFrame:
    """Return prompt and completion as messages, and whether the completion is desired; each completion once."""
    if set(PAIRED) <= set(rows.columns):
        sides = [
            rows.select(
                "prompt",
                pl.col(side).alias("completion"),
                pl.lit(side == "chosen").alias("label"),
                pl.col(f"{side}_id" if f"{side}_id" in rows.columns else "row_id").alias("completion_id"),
                *[name for name in ("prompt_id", "split") if name in rows.columns],
            )
            for side in ("chosen", "rejected")
        ]
        return pl.concat(sides).unique(["prompt", "completion", "label"], keep="first", maintain_order=True)
    return rows.select(
        _asked().alias("prompt"),
        _said("response").alias("completion"),
        (pl.col("alignment") == "aligned").alias("label"),
        pl.col("row_id").alias("completion_id"),
        "prompt_id",
        *_there(rows),
    )


def _there(rows: pl.DataFrame) -> list[str]:
    return [name for name in _EXTRA if name in rows.columns]


def _asked() -> pl.Expr:
    return pl.col("messages").list.head(pl.col("messages").list.len() - 1)


def _said(column: str) -> pl.Expr:
    return pl.concat_list(pl.struct(role=pl.lit("assistant"), content=pl.col(column))).cast(MESSAGES).alias(column)


def _as_texts(pairs: pl.DataFrame, shown: Shown) -> pl.DataFrame:
    more = pairs.filter(pl.col("prompt").list.len() != 1)
    if more.height:
        raise UsageError(
            f"{more.height:,} of {pairs.height:,} pairs of {shown.ref.system}/{shown.ref.stage} have a system text or "
            f"earlier turns (prompt {more['prompt_id'][0]}), which cannot be written as text without a chat "
            "template: use --pairs conversational"
        )
    return pairs.with_columns(pl.col(name).list.last().struct.field("content").alias(name) for name in PAIRED)
