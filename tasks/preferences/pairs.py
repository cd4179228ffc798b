"""Pairs of a reply that is preferred and one that is rejected: by quality, by format alone, or as published."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import polars as pl
from pydantic import Field

from normloom.core.errors import SourceError
from normloom.core.fan_out import free
from normloom.core.stage import Output, dropped_frame
from normloom.schemas.training import preference_tables
from normloom.schemas.training.preference_tables import (
    BAD,
    CONTENT,
    FORMAT,
    HELD_OUT,
    OK,
    PUBLISHED_PAIRS,
    QUALITY_PAIRS,
    SIMPLE_PAIRS,
    TRAIN,
)
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.preferences.replies import AskingReply

SIDES = {"aligned": "chosen", "misaligned": "rejected"}
_SCALE = 10_000


class Pairing(Args):
    """Which pairs are made, what each counts, and which prompts are kept for evaluation."""

    upper: float = Field(0.6, gt=0, lt=1, description="quantile of the quality from which a reply can be chosen")
    lower: float = Field(0.4, gt=0, lt=1, description="quantile up to which a reply can be rejected")
    weight: Literal["sigmoid", "none"] = Field("sigmoid", description="weight of a pair's loss: sigmoid(margin), or 1")
    held_out: float = Field(0.1, ge=0, lt=1, description="share of the prompts whose pairs are not trained on")
    seed: int = Field(42, description="seed of the choice of held-out prompts")

    def split(self, dialogue: str) -> str:
        """Return the split of all pairs of one prompt; it depends on the prompt and the seed alone."""
        digest = hashlib.blake2b(f"{self.seed}\x1f{dialogue}".encode(), digest_size=8).digest()
        return HELD_OUT if int.from_bytes(digest, "big") % _SCALE < self.held_out * _SCALE else TRAIN

    def weighted(self) -> pl.Expr:
        """Return the weight of a pair's loss, 1 without a margin."""
        sigmoid = 1 / (1 + (-pl.col("margin")).exp())
        return (sigmoid if self.weight == "sigmoid" else pl.lit(1.0)).fill_null(1.0)


class PairArgs(Pairing, AskingReply):
    """Pairs, and the question that the policy answers in them."""


@step(
    makes=preference_tables.PAIRS,
    libraries=("numpy",),
    name="pairs",
    fan_out=free("every good reply against every poor one to a prompt"),
)
def quality_pairs(rows: pl.DataFrame, args: PairArgs, parsed: pl.DataFrame, prompts: pl.DataFrame) -> Output:
    """Return, in each prompt, every reply of at least the upper quantile against every one of at most the lower.

    The quantiles are over all replies that are scored, interpolated linearly. A pair of equal texts is dropped as
    `same_text`. Raises SourceError if there is no pair at all.
    """
    import numpy as np

    lower, upper = np.quantile(rows["quality"].to_numpy(), [args.lower, args.upper]) if rows.height else (0.0, 0.0)
    good = rows.filter((pl.col("quality") >= upper) & (pl.col("parse_status") == OK))
    poor = rows.filter(pl.col("quality") <= lower)
    paired = _against(good, poor).with_columns(margin=pl.col("quality") - pl.col("quality_rejected"))
    found = _made(paired, args, parsed, prompts, method=QUALITY_PAIRS)
    metrics = {"upper_quantile": float(upper), "lower_quantile": float(lower)}
    return Output(rows=found.rows, dropped=found.dropped, attempts=found.attempts, metrics=metrics)


@step(
    makes=preference_tables.PAIRS,
    libraries=("numpy",),
    fan_out=free("every reply that parsed against every one that did not"),
)
def simple_pairs(rows: pl.DataFrame, args: PairArgs, parsed: pl.DataFrame, prompts: pl.DataFrame) -> Output:
    """Return the pairs of the simple baseline: in each prompt every reply that parsed against every one that did not.

    They have no margin, so each counts 1.
    """
    paired = _against(rows.filter(parse_status=OK), rows.filter(parse_status=BAD))
    nothing = pl.lit(None, dtype=pl.Float64)
    return _made(paired.with_columns(margin=nothing), args, parsed, prompts, method=SIMPLE_PAIRS)


def _against(good: pl.DataFrame, poor: pl.DataFrame) -> pl.DataFrame:
    return good.join(poor, on="dialogue", suffix="_rejected", maintain_order="left_right")


def _made(paired: pl.DataFrame, args: PairArgs, parsed: pl.DataFrame, prompts: pl.DataFrame, *, method: str) -> Output:
    """Return pairs of scored replies with their texts."""
    texts = parsed.select("gen_id", text="raw_reply")
    asked = {
        prompt["prompt_id"]: (args.messages(prompt), args.split(prompt["dialogue"]))
        for prompt in prompts.filter(pl.col("prompt_id").is_in(paired["prompt_id"].implode())).iter_rows(named=True)
    }
    questions = pl.DataFrame(
        {
            "prompt_id": list(asked),
            "messages": [messages for messages, _ in asked.values()],
            "split": [split for _, split in asked.values()],
        },
        schema={name: preference_tables.PAIRS.columns[name] for name in ("prompt_id", "messages", "split")},
    )
    pairs = (
        paired.join(texts.rename({"text": "chosen"}), on="gen_id", how="left", maintain_order="left")
        .join(
            texts.rename({"gen_id": "gen_id_rejected", "text": "rejected"}),
            on="gen_id_rejected",
            how="left",
            maintain_order="left",
        )
        .join(questions, on="prompt_id", how="left", maintain_order="left")
        .select(
            "prompt_id",
            "dialogue",
            "messages",
            "chosen",
            "rejected",
            "margin",
            "split",
            parents=pl.concat_list("row_id", "row_id_rejected"),
            chosen_id="gen_id",
            rejected_id="gen_id_rejected",
            chosen_model="model",
            rejected_model="model_rejected",
            chosen_words="words",
            rejected_words="words_rejected",
            rejected_kind=pl.when(parse_status_rejected=OK).then(pl.lit(CONTENT)).otherwise(pl.lit(FORMAT)),
            method=pl.lit(method),
        )
        .with_columns(weight=args.weighted())
    )
    return _without_equal(pairs)


def _without_equal(pairs: pl.DataFrame) -> Output:
    """Return the pairs whose two texts differ; the others are dropped."""
    same = pl.col("chosen") == pl.col("rejected")
    gone = [
        {"row_id": parents[0], "reason": "same_text", "winner": parents[1], "payload": None}
        for parents in pairs.filter(same)["parents"].to_list()
    ]
    return Output(rows=pairs.filter(~same), dropped=dropped_frame(gone), attempts=pairs.height)


@step(
    makes=preference_tables.PAIRS,
    libraries=("numpy",),
    name="pairs",
    fan_out=free("one pair for each aligned and misaligned response"),
)
def published_pairs(rows: pl.DataFrame, args: Pairing, *, limit: int | None = None) -> Output:
    """Return the pairs of a released table: in each prompt every aligned response against every misaligned one.

    The table has the columns prompt_id, messages (the whole conversation), response, alignment and generator, as those
    of SaVaCu and MisAlignTrade have; its test split is held out, without one the share that the settings say. A
    prompt that lacks one of the two is dropped as `one_sided`, those after the first `limit` prompts with pairs as
    `limit`. Raises SourceError for a table without these columns.
    """
    needed = ("prompt_id", "messages", "response", "alignment", "generator")
    if absent := [name for name in needed if name not in rows.columns]:
        raise SourceError(f"the released table has no column {absent[0]!r}: pairs are made of {', '.join(needed)}")
    sides = {side: _side(rows, alignment) for alignment, side in SIDES.items()}
    paired = sides["chosen"].join(sides["rejected"], on="prompt_id", suffix="_rejected", maintain_order="left_right")
    two_sided = paired["prompt_id"].unique(maintain_order=True)
    taken = pl.col("prompt_id").is_in(two_sided.head(limit or two_sided.len()).implode())
    why = pl.when(pl.col("prompt_id").is_in(two_sided.implode())).then(pl.lit("limit")).otherwise(pl.lit("one_sided"))
    left = rows.filter(~taken).select("row_id", reason=why)
    paired = paired.filter(taken)
    columns = {
        "messages": pl.col("messages").list.head(pl.col("messages").list.len() - 1),
        "parents": pl.concat_list("row_id", "row_id_rejected"),
        "split": _published_split(paired, args),
        "rejected_kind": pl.lit(CONTENT),
        "margin": pl.lit(None, dtype=pl.Float64),
        "method": pl.lit(PUBLISHED_PAIRS),
        "weight": pl.lit(1.0),
    }
    for suffix, side in (("", "chosen"), ("_rejected", "rejected")):
        columns |= {
            side: pl.col(f"response{suffix}"),
            f"{side}_id": pl.col(f"row_id{suffix}"),
            f"{side}_model": pl.col(f"generator{suffix}"),
            f"{side}_words": pl.col(f"response{suffix}").str.split(" ").list.len().cast(pl.Int64),
        }
    made = _without_equal(paired.select("prompt_id", dialogue="prompt_id", **columns))
    gone = [
        {"row_id": row_id, "reason": reason, "winner": None, "payload": None} for row_id, reason in left.iter_rows()
    ]
    dropped = pl.concat([made.dropped, dropped_frame(gone)])
    return Output(rows=made.rows, dropped=dropped, attempts=made.rows.height + dropped.height)


def _side(rows: pl.DataFrame, alignment: str) -> pl.DataFrame:
    kept: list[Any] = ["row_id", "prompt_id", "messages", "response", "generator"]
    if "split" in rows.columns:
        kept.append("split")
    return rows.filter(alignment=alignment).select(kept)


def _published_split(paired: pl.DataFrame, args: Pairing) -> pl.Expr:
    if "split" in paired.columns:
        return pl.when(split="test").then(pl.lit(HELD_OUT)).otherwise(pl.lit(TRAIN))
    return pl.col("prompt_id").map_elements(args.split, return_dtype=pl.String)
