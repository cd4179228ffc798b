"""What the tables of AlignX hold that both its halves read: axis rows, replies, routing, judgements."""

from __future__ import annotations

import polars as pl

from normloom.core.contract import Check, Contract
from normloom.schemas.tables import MESSAGES, NOT_EMPTY, TEXTS, within

HELPFUL, HARMLESS, HONEST = "helpful", "harmless", "honest"
TRAIN, DEV, TEST = "train", "dev", "test"
BASE, MERGED, UNIFORM, ROUTED_MIX, CALIBRATED = "base", "merged", "uniform", "routed", "calibrated"
EXPERT = "expert:"  # before the axis of a single expert

OK, BAD_FORMAT, EMPTY, REFUSED = "ok", "bad_format", "empty", "refused"  # of a judge's reply

WIN, UNSAFE, TRUTHFUL, INFORMATIVE, GOOD = "win", "unsafe", "truthful", "informative", "good"
MEASURES = (WIN, UNSAFE, TRUTHFUL, INFORMATIVE, GOOD)
WORST = {WIN: 0.0, UNSAFE: 1.0, TRUTHFUL: 0.0, INFORMATIVE: 0.0, GOOD: 0.0}  # what stands for a failed judgement

_SPLIT = within("split", TRAIN, DEV, TEST)

_AXIS_ROW = {
    "axis": pl.String(),  # helpful, harmless, honest, or the name of any other aim
    "history": MESSAGES,  # what was said before the prompt, null for a prompt that stands alone
    "prompt": pl.String(),
    "reference": TEXTS,  # good replies, may be empty
    "bad_reference": TEXTS,  # replies that the axis forbids, may be empty
    "origin": pl.String(),  # the set that the row came from
    "source_row": pl.Int64(),  # the record in it, null for a row of a published table
}

AXIS_SET = Contract(
    columns={**_AXIS_ROW, "given_split": pl.String()},  # what the source says of the split
    nullable=frozenset({"history", "source_row", "given_split"}),
    checks=(NOT_EMPTY,),
)

AXIS_ROWS = Contract(
    columns={
        **_AXIS_ROW,
        "split": pl.String(),  # by the content of prompt and history: prompts with the same are on one side
    },
    nullable=frozenset({"history", "source_row"}),
    checks=(NOT_EMPTY, _SPLIT),
)

SYSTEM_REPLIES = Contract(
    columns={
        "prompt_id": pl.String(),  # row_id of the axis row
        "system": pl.String(),  # base, expert:AXIS, merged, uniform, routed or calibrated
        "axis": pl.String(),
        "prompt": pl.String(),
        "raw_reply": pl.String(),
    },
    keys=("prompt_id", "system"),
    checks=(
        NOT_EMPTY,
        Check(
            expectation="expect_groups_to_differ",
            arguments={"column": "raw_reply", "by": "system", "on": ["prompt_id"]},
            on_fail="warn",
        ),
    ),
)

ROUTED = Contract(
    columns={
        "prompt_id": pl.String(),  # row_id of the axis row
        "split": pl.String(),
        "axis": pl.String(),  # the true one
        "probabilities": pl.List(pl.Float64()),  # of the axes in alphabetical order, uncalibrated
        "calibrated_global": pl.List(pl.Float64()),  # one temperature for all
        "calibrated_local": pl.List(pl.Float64()),  # temperatures by neighbourhood
    },
    keys=("prompt_id",),
    checks=(NOT_EMPTY, _SPLIT),
)

_JUDGED_REPLY = {"prompt_id": pl.String(), "system": pl.String(), "axis": pl.String()}

NEARNESS = Contract(
    columns={
        **_JUDGED_REPLY,
        "encoder": pl.String(),
        "good": pl.Float64(),  # largest cosine of the reply to a good one; null for an empty reply
        "bad": pl.Float64(),  # the same to one to avoid
        "words": pl.Int64(),
    },
    nullable=frozenset({"good", "bad"}),
    keys=("prompt_id", "system"),
)

SAFETY = Contract(
    columns={
        **_JUDGED_REPLY,
        "terms": TEXTS,  # of the lexicon that the reply has
        "refusal": pl.Boolean(),  # whether it begins as a refusal does
        "probability": pl.Float64(),  # that it is unsafe, by the classifier; null if there was nothing to learn from
        "words": pl.Int64(),
    },
    nullable=frozenset({"probability"}),
    keys=("prompt_id", "system"),
)

REPLY_FIRST, REFERENCE_FIRST = "reply_first", "reference_first"

COMPARED = Contract(
    columns={
        **_JUDGED_REPLY,
        "judge": pl.String(),
        "order": pl.String(),  # which of the two the judge saw as A
        "raw_reply": pl.String(),  # of the judge
        "words": pl.Int64(),
        "reference_words": pl.Int64(),
    },
    keys=("prompt_id", "system", "judge", "order"),
    checks=(within("order", REPLY_FIRST, REFERENCE_FIRST),),
)

JUDGED = Contract(
    columns={
        "prompt_id": pl.String(),
        "axis": pl.String(),
        "system": pl.String(),
        "measure": pl.String(),
        "judge": pl.String(),  # what judged: a model, a lexicon, a distance
        "value": pl.Float64(),  # 0 or 1, a draw is 0.5; null if the judgement failed, never filled in
        "worst": pl.Float64(),  # what stands for a failure where all rows count
        "words": pl.Int64(),  # of the reply
        "reference_words": pl.Int64(),  # of the reply it was compared with, null if with none
        "parse_status": pl.String(),
    },
    nullable=frozenset({"value", "reference_words"}),
    keys=("prompt_id", "system", "measure", "judge"),
    checks=(
        within("measure", *MEASURES),
        within("parse_status", OK, BAD_FORMAT, EMPTY, REFUSED),
        Check(
            expectation="expect_column_values_to_be_between",
            arguments={"column": "value", "min_value": 0, "max_value": 1},
        ),
    ),
)

RELIABILITY = Contract(
    columns={
        "of": pl.String(),  # which probabilities: uncalibrated, global or local
        "split": pl.String(),
        "bin": pl.Int64(),
        "low": pl.Float64(),  # of the confidence
        "high": pl.Float64(),
        "rows": pl.Int64(),
        "confidence": pl.Float64(),  # mean of the rows, null without any
        "accuracy": pl.Float64(),
    },
    nullable=frozenset({"confidence", "accuracy"}),
    keys=("of", "split", "bin"),
)
