"""What the tables of PersoDPO hold: one contract for each kind of table."""

from __future__ import annotations

import polars as pl

from normloom.core.contract import Check, Contract
from normloom.schemas.tables import FIGURES, MESSAGES, NOT_EMPTY, within

OK, BAD, NONE = "ok", "bad", "none"  # JSON as asked for; a reply that is cut off or broken; no reply to be found
TRAIN, VALID, HELD_OUT = "train", "valid", "held_out"
CONTENT, FORMAT = "content", "format"  # why a reply was rejected: what it says, or that it did not parse
QUALITY_PAIRS, SIMPLE_PAIRS, PUBLISHED_PAIRS = "quality", "simple", "published"

COHERENCE, CONSISTENCY = "coherence", "consistency"
UTTERANCE_ENTAILMENT, PERSONA_DISTANCE = "utterance_entailment", "persona_distance"
LENGTH_FORMAT = "length_format"
MEASURED = (COHERENCE, CONSISTENCY, UTTERANCE_ENTAILMENT, PERSONA_DISTANCE)
SIGNAL_NAMES = (*MEASURED, LENGTH_FORMAT)
BOUNDS = {
    COHERENCE: (0.0, 1.0),
    CONSISTENCY: (-1.0, 1.0),
    UTTERANCE_ENTAILMENT: (0.0, 2.0),
    PERSONA_DISTANCE: (-1.0, 1.0),
    LENGTH_FORMAT: (0.0, 1.3),
}
WORST = {COHERENCE: 0.0, CONSISTENCY: -1.0, UTTERANCE_ENTAILMENT: 0.0, PERSONA_DISTANCE: 0.0, LENGTH_FORMAT: 0.0}

SHORTCUT_LIMIT = 0.8  # area under the curve above which one feature alone tells chosen from rejected

_STATUS = within("parse_status", OK, BAD, NONE)


def _between(column: str, low: float | None, high: float | None = None, *, warn: bool = False) -> Check:
    limits = {name: value for name, value in (("min_value", low), ("max_value", high)) if value is not None}
    return Check(
        expectation="expect_column_values_to_be_between",
        arguments={"column": column, **limits},
        on_fail="warn" if warn else "stop",
    )


PERSONA_PROMPTS = Contract(
    columns={
        "source_row": pl.Int64(),
        "prompt_id": pl.String(),
        "split": pl.String(),
        "persona": pl.String(),
        "context": pl.String(),
        "reference": pl.String(),  # what was said next, null if the source does not say
        "dialogue": pl.String(),  # digest of persona and context: prompts with the same are one
    },
    nullable=frozenset({"reference"}),
    keys=("prompt_id",),
    checks=(NOT_EMPTY, within("split", TRAIN, VALID)),
)

REPLIES = Contract(
    columns={
        "gen_id": pl.String(),
        "prompt_id": pl.String(),
        "dialogue": pl.String(),
        "model": pl.String(),
        "raw_reply": pl.String(),
        "seconds": pl.Float64(),  # of the reply, null if nobody took the time
    },
    nullable=frozenset({"seconds"}),
    keys=("gen_id",),
    checks=(NOT_EMPTY,),
)

PARSED = Contract(
    columns={
        **REPLIES.columns,
        "response": pl.String(),  # null if nothing was found
        "parse_status": pl.String(),
        "words": pl.Int64(),  # of the response
        "json_in_raw": pl.Boolean(),  # whether the raw reply holds exactly one JSON object with a response
        "json_in_response": pl.Boolean(),  # the same of the response
    },
    nullable=REPLIES.nullable | {"response", "words"},
    keys=("gen_id",),
    checks=(NOT_EMPTY, _STATUS),
)

SIGNALS = Contract(
    columns={
        "gen_id": pl.String(),
        "signal": pl.String(),
        "value": pl.Float64(),  # null if the reply did not parse: a failure is never filled in here
        "low": pl.Float64(),  # of the values that the signal can have
        "high": pl.Float64(),
        "worst": pl.Float64(),  # what stands for a reply that did not parse
        "bonus": pl.Boolean(),  # whether the JSON bonus is in the value; null for signals without one
        "source": pl.String(),  # what measured it: released, or a measure and its model
    },
    nullable=frozenset({"value", "bonus"}),
    keys=("gen_id", "signal"),
    checks=(within("signal", *SIGNAL_NAMES),),
)

RANGES = Contract(
    columns={
        "signal": pl.String(),
        "least": pl.Float64(),  # over the replies that are scored, failures at the worst value
        "most": pl.Float64(),
        "mean": pl.Float64(),
        "valid_mean": pl.Float64(),  # over those that parsed
        "rows": pl.Int64(),
        "valid": pl.Int64(),
        "source": pl.String(),
    },
    nullable=frozenset({"valid_mean"}),
    keys=("signal",),
)

SCORED = Contract(
    columns={
        "gen_id": pl.String(),
        "prompt_id": pl.String(),
        "dialogue": pl.String(),
        "model": pl.String(),
        "parse_status": pl.String(),
        "words": pl.Int64(),
        **dict.fromkeys(SIGNAL_NAMES, pl.Float64()),  # as they enter the quality
        "bonus_fired": pl.Boolean(),
        "quality": pl.Float64(),
    },
    keys=("gen_id",),
    checks=(_STATUS,),
)

PAIRS = Contract(
    columns={
        "prompt_id": pl.String(),
        "dialogue": pl.String(),
        "messages": MESSAGES,  # what the policy is asked
        "chosen": pl.String(),  # what it should rather write, as written
        "rejected": pl.String(),
        "chosen_id": pl.String(),
        "rejected_id": pl.String(),
        "chosen_model": pl.String(),
        "rejected_model": pl.String(),
        "chosen_words": pl.Int64(),
        "rejected_words": pl.Int64(),
        "rejected_kind": pl.String(),
        "margin": pl.Float64(),  # difference of the qualities, null if the method has none
        "weight": pl.Float64(),  # of the pair's loss
        "method": pl.String(),
        "split": pl.String(),
    },
    nullable=frozenset({"margin"}),
    checks=(
        within("rejected_kind", CONTENT, FORMAT),
        within("method", QUALITY_PAIRS, SIMPLE_PAIRS, PUBLISHED_PAIRS),
        within("split", TRAIN, HELD_OUT),
        Check(
            expectation="expect_column_to_vary",
            arguments={"column": "weight", "by": ["method"], "among": "margin"},  # simple pairs have no margin
            on_fail="warn",
        ),
    ),
)

SHORTCUTS = Contract(
    columns=FIGURES.columns,
    nullable=FIGURES.nullable,
    keys=FIGURES.keys,
    checks=(_between("value", None, SHORTCUT_LIMIT, warn=True),),
)

CHECKED = Contract(
    columns={
        "check": pl.String(),  # as METHODS names it: C1 to C14
        "of": pl.String(),
        "asks": pl.String(),
        "found": pl.String(),
        "passed": pl.Boolean(),
    },
    keys=("check", "of"),
    checks=(
        Check(
            expectation="expect_column_values_to_be_in_set",
            arguments={"column": "passed", "value_set": [True]},
            on_fail="warn",
        ),
    ),
)

RELEASED_PAIRS = Contract(
    columns={
        "prompt": MESSAGES,
        "chosen": MESSAGES,
        "rejected": MESSAGES,
        **{name: kind for name, kind in PAIRS.columns.items() if name not in {"messages", "chosen", "rejected"}},
    },
    nullable=PAIRS.nullable,
    checks=(NOT_EMPTY, *PAIRS.checks),
)

CURVE = Contract(
    columns={
        "step": pl.Int64(),
        "epoch": pl.Float64(),
        "loss": pl.Float64(),  # what was minimised, weights and all
        "unweighted_loss": pl.Float64(),
        "learning_rate": pl.Float64(),
        "gradient_norm": pl.Float64(),
        "reward_accuracy": pl.Float64(),  # share of the step's pairs whose chosen reply has the larger implicit reward
        "reward_margin": pl.Float64(),
        "tokens": pl.Int64(),  # read so far
        "seconds": pl.Float64(),  # of the step
    },
    keys=("step",),
    checks=(
        NOT_EMPTY,
        Check(
            expectation="expect_training_to_have_worked",
            arguments={"column": "unweighted_loss", "step": "step", "share": 0.25},
            on_fail="warn",
        ),
    ),
)

LOG_PROBS = Contract(
    columns={
        "pair_id": pl.String(),
        "dialogue": pl.String(),
        "policy": pl.String(),
        "split": pl.String(),
        "chosen_logprob": pl.Float64(),  # natural, the sum over the reply's tokens
        "rejected_logprob": pl.Float64(),
        "chosen_tokens": pl.Int64(),
        "rejected_tokens": pl.Int64(),
        "prompt_tokens": pl.Int64(),
    },
    keys=("pair_id",),
    checks=(_between("chosen_logprob", None, 0), _between("rejected_logprob", None, 0)),
)

EVALUATED = Contract(
    columns={
        "policy": pl.String(),
        "prompt_id": pl.String(),
        "dialogue": pl.String(),
        "valid": pl.Boolean(),
        "raw_status": pl.String(),  # how the raw reply parses
        "seconds": pl.Float64(),
        **dict.fromkeys(MEASURED, pl.Float64()),  # failures at the worst value
    },
    nullable=frozenset({"seconds"}),
    keys=("policy", "prompt_id"),
    checks=tuple(_between(name, *BOUNDS[name]) for name in MEASURED),
)
