"""How likely a model is to give the chosen and the rejected reply of each pair: what DPO compares."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl
from pydantic import Field

from normloom.core.errors import ConfigError
from normloom.core.fan_out import each
from normloom.core.models.protocol import ReplyRequest, ReplyScorer, Turn
from normloom.core.stage import Output, dropped, dropped_frame
from normloom.schemas.training import preference_tables
from normloom.steps.args import Args
from normloom.steps.step import step

SIDES = ("chosen", "rejected")


class PairReading(Args):
    """Which pairs a policy reads."""

    max_tokens: int | None = Field(None, ge=2, description="longer prompts with a reply are dropped; null: the context")
    part_rows: int = Field(128, ge=1, exclude=True, description="pairs in one part")


@step(makes=preference_tables.LOG_PROBS, name="log_probs_{policy}", fan_out=each())
def log_probs(
    rows: pl.DataFrame, args: PairReading, model: ReplyScorer, *, policy: str, split: str | None = None
) -> Output:
    """Return the log-probabilities of the two replies of each pair, of one split if it is named.

    Dropped are pairs without a reply (`no_reply`), with two equal ones (`same_text`), with a prompt and a reply that
    are longer than the model's context or `max_tokens` (`too_long`: nothing is cut), and those of another split
    (`other_split`). Raises ConfigError for a model that cannot score replies.
    """
    if not isinstance(model, ReplyScorer):
        raise ConfigError(f"policy {policy!r}: its engine does not score replies; use engine transformers")
    asked, gone = [], []
    for pair in rows.iter_rows(named=True):
        if reason := "other_split" if split and pair["split"] != split else fault(pair):
            gone.append(dropped(named(pair), reason))
        else:
            asked.append(pair)
    scores = model.score_replies(
        [replace(request(pair, pair[side]), max_tokens=args.max_tokens) for pair in asked for side in SIDES]
    )
    made = []
    for pair, chosen, rejected in zip(asked, scores[::2], scores[1::2], strict=True):
        if chosen.error or rejected.error:
            gone.append(dropped(named(pair), "too_long"))
            continue
        made.append(
            {
                "row_id": pair["row_id"],
                "pair_id": pair["row_id"],
                "dialogue": pair["dialogue"],
                "policy": policy,
                "split": pair["split"],
                "chosen_logprob": chosen.logprob,
                "rejected_logprob": rejected.logprob,
                "chosen_tokens": chosen.tokens,
                "rejected_tokens": rejected.tokens,
                "prompt_tokens": chosen.tokens_in,
            }
        )
    return Output(
        rows=pl.DataFrame(made, schema={"row_id": pl.String, **preference_tables.LOG_PROBS.columns}),
        dropped=dropped_frame(gone),
        tokens_in=sum(score.tokens_in + score.tokens for score in scores if score.error is None),
    )


def fault(pair: dict[str, Any]) -> str | None:
    """Return why a pair cannot be learned from, None if it can."""
    if not all(pair[side] and pair[side].strip() for side in SIDES):
        return "no_reply"
    return "same_text" if pair["chosen"] == pair["rejected"] else None


def request(pair: dict[str, Any], reply: str) -> ReplyRequest:
    """Return the question of a pair with one of its replies, as a model that answered it was asked."""
    *before, last = pair["messages"]
    system = [turn["content"] for turn in before if turn["role"] == "system"]
    turns = [Turn(turn["role"], turn["content"]) for turn in before if turn["role"] != "system"]
    return ReplyRequest(instruction="\n\n".join(system), prompt=last["content"], reply=reply, history=tuple(turns))


def named(pair: dict[str, Any]) -> dict[str, Any]:
    """Return what the ledger keeps of a pair; its texts are in the table of pairs."""
    return {name: pair[name] for name in ("row_id", "prompt_id", "chosen_id", "rejected_id")}
