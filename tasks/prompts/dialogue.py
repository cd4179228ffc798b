"""What was said before a prompt: how it is put to models, read by judges and released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from normloom.core.models.protocol import Turn
from normloom.schemas import tables

History = Sequence[Mapping[str, str]] | None  # a cell of the column `history`


def turns(history: History) -> tuple[Turn, ...]:
    """Return a row's history as models are given it."""
    return tuple(Turn(turn["role"], turn["content"]) for turn in history or ())


def transcript(history: History, prompt: str) -> str:
    """Return what a reader of the prompt must see: the whole conversation, or the prompt if it stands alone."""
    if not history:
        return prompt
    said = [*turns(history), Turn("user", prompt)]
    return "\n".join(f"{turn.role.capitalize()}: {turn.content}" for turn in said)


def transcripts(rows: pl.DataFrame) -> list[str]:
    """Return the transcript of each row by its columns `history`, if there is one, and `prompt`."""
    if "history" not in rows.columns:
        return rows["prompt"].to_list()
    return [transcript(*row) for row in rows.select("history", "prompt").iter_rows()]


def said_by_user(rows: pl.DataFrame) -> pl.Series:
    """Return all that the user of each row says, the prompt last: system texts are often shared, and tell nothing."""
    if alone(rows).all():
        return rows["prompt"]
    turn = pl.element().struct
    before = pl.col("history").list.eval(turn.field("content").filter(turn.field("role") == "user"))
    said = pl.concat_list(before, "prompt").list.join("\n")
    return rows.select(pl.when(pl.col("history").is_null()).then("prompt").otherwise(said).alias("prompt"))["prompt"]


def alone(rows: pl.DataFrame) -> pl.Series:
    """Return which rows are prompts that stand alone; all are if there is no column `history`."""
    if "history" in rows.columns:
        return rows["history"].is_null()
    return pl.Series([True] * rows.height, dtype=pl.Boolean)


def messages() -> pl.Expr:
    """Return the column `messages` of rows with `history`, `prompt` and `response`."""

    def turn(role: str, column: str) -> pl.Expr:
        return pl.concat_list(pl.struct(role=pl.lit(role), content=pl.col(column)))

    before = pl.col("history").fill_null(pl.lit([], dtype=tables.MESSAGES))
    return pl.concat_list(before, turn("user", "prompt"), turn("assistant", "response")).alias("messages")


def history() -> pl.Expr:
    """Return what stands before prompt and response in the column `messages`, null if nothing does."""
    said = pl.col("messages")
    return pl.when(said.list.len() > 2).then(said.list.head(said.list.len() - 2))  # noqa: PLR2004  # these two
