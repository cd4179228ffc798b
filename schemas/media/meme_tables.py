"""What the tables of meme abuse with knowledge hold: one contract for each kind of table."""

from __future__ import annotations

import polars as pl

from normloom.core.contract import Check, Contract
from normloom.schemas.tables import NOT_EMPTY, TEXTS, trained, within

TRAIN, VALIDATION, TEST = "train", "validation", "test"
NEAR_TEST = "near_test"  # of the source's training split, but nearly the same as a meme that is not
SPLITS = (TRAIN, VALIDATION, TEST, NEAR_TEST)
PLAIN, ENRICHED, SHUFFLED = "plain", "enriched", "shuffled"
VARIANTS = (PLAIN, ENRICHED, SHUFFLED)
HEAD, ADAPTER = "head", "adapter"  # a linear head, and the same with its rank-r update
METHODS = (HEAD, ADAPTER)
CITED, RANDOM = "cited", "random"

_MEME = {
    "meme_id": pl.String(),
    "task": pl.String(),
    "template": pl.String(),
    "split": pl.String(),
    "label": pl.String(),
}
_PLACE = {"media_id": pl.String(), "shard": pl.String(), "offset": pl.Int64(), "size": pl.Int64()}
_PROBABILITY = Check(
    expectation="expect_column_values_to_be_between",
    arguments={"column": "probability", "min_value": 0, "max_value": 1},
)

LABELLED_MEMES = Contract(
    columns={"source_row": pl.Int64(), **_MEME, "text": pl.String()},  # null: to be read in the picture
    nullable=frozenset({"text"}),
    keys=("meme_id",),
    checks=(NOT_EMPTY, within("split", TRAIN, VALIDATION, TEST)),
)

UNREAD = Contract(  # pictures that are read, with the text that is known of some
    columns={"item_id": pl.String(), "text": pl.String(), **_PLACE}, nullable=frozenset({"text"}), keys=("item_id",)
)

READ_MEMES = Contract(
    columns={**_MEME, "text": pl.String(), "read_by": pl.String(), **_PLACE},
    nullable=frozenset(_PLACE),
    keys=("meme_id",),
    checks=(NOT_EMPTY, within("read_by", "source", "ocr"), within("split", *SPLITS)),
)

NEAR_MEMES = Contract(
    columns={"meme_id": pl.String(), "near_id": pl.String(), "by": pl.String(), "distance": pl.Int64()},
    keys=("meme_id",),
    checks=(within("by", "text", "picture"),),
)

VARIANT_TEXTS = Contract(
    columns={
        "item_id": pl.String(),
        "meme_id": pl.String(),
        "variant": pl.String(),
        "text": pl.String(),
        "donor": pl.String(),  # the meme whose facts these are, null if they are its own or it has none
    },
    nullable=frozenset({"donor"}),
    keys=("item_id",),
    checks=(NOT_EMPTY, within("variant", *VARIANTS)),
)

HARD_PAIRS = Contract(
    columns={
        "variant": pl.String(),
        "task": pl.String(),
        "anchor": pl.String(),
        "positive": pl.String(),  # the nearest of its class
        "negative": pl.String(),  # the nearest of another
        "distance": pl.Float64(),  # 1 - cosine of anchor and negative
    },
    keys=("variant", "anchor"),
    checks=(NOT_EMPTY,),
)

ADAPTER_CURVE = Contract(
    columns={
        "task": pl.String(),
        "variant": pl.String(),
        "epoch": pl.Int64(),  # 0: the head alone
        "loss": pl.Float64(),  # mean over the batches; null at epoch 0
        "contrast": pl.Float64(),  # the contrastive part of it
        "validation_f1": pl.Float64(),  # null without validation memes
        "chosen": pl.Boolean(),
        "weights": pl.String(),  # digest
    },
    nullable=frozenset({"loss", "contrast", "validation_f1"}),
    keys=("task", "variant", "epoch"),
    checks=(NOT_EMPTY, trained(by=("task", "variant"))),
)

TUNING_CURVE = Contract(
    columns={
        "task": pl.String(),
        "variant": pl.String(),
        "step": pl.Int64(),
        "loss": pl.Float64(),
        "contrast": pl.Float64(),  # the contrastive part of it
    },
    keys=("task", "variant", "step"),
    checks=(NOT_EMPTY,),
)

VERDICTS = Contract(
    columns={
        "meme_id": pl.String(),
        "task": pl.String(),
        "split": pl.String(),
        "variant": pl.String(),
        "method": pl.String(),
        "label": pl.String(),
        "label_hat": pl.String(),
        "probability": pl.Float64(),  # of label_hat
    },
    keys=("meme_id", "variant", "method"),
    checks=(NOT_EMPTY, within("variant", *VARIANTS), within("method", *METHODS), _PROBABILITY),
)

TAKEN_AWAY = Contract(
    columns={
        "item_id": pl.String(),
        "meme_id": pl.String(),
        "unit": pl.String(),  # the mention that is taken away with its facts, or `cited`, or `random` and a number
        "text": pl.String(),  # what is left
    },
    keys=("item_id",),
)

EXPLANATIONS = Contract(
    columns={
        "meme_id": pl.String(),
        "task": pl.String(),
        "label": pl.String(),
        "label_hat": pl.String(),
        "probability": pl.Float64(),
        "visual": pl.String(),
        "textual": pl.String(),
        "cultural": pl.String(),
        "verdict": pl.String(),
        "cited_ids": TEXTS,  # mentions, then facts
        "written_by": pl.String(),  # template, or the model that rewrote it
    },
    keys=("meme_id",),
    checks=(_PROBABILITY,),
)

FAITHFULNESS = Contract(
    columns={
        "meme_id": pl.String(),
        "task": pl.String(),
        "drop_cited": pl.Float64(),  # of the verdict's probability
        "drop_random": pl.Float64(),  # mean over the draws
    },
    keys=("meme_id",),
)
