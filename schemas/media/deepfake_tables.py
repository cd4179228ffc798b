"""What the tables of deepfake detection hold: one contract for each kind of table."""

from __future__ import annotations

import polars as pl

from normloom.core.contract import Check, Contract
from normloom.schemas.tables import NOT_EMPTY, trained, within

REAL, FAKE = "real", "fake"
NO_GENERATOR = "none"  # of real recordings

_LABEL = within("label", REAL, FAKE)
_RECORDING = {
    "item_id": pl.String(),
    "label": pl.String(),
    "speaker": pl.String(),
    "generator": pl.String(),  # none of real recordings
    "source_item": pl.String(),  # the recording that pieces and fakes come from
}

RECORDINGS = Contract(columns=_RECORDING, keys=("item_id",), checks=(NOT_EMPTY, _LABEL))

ITEMS = Contract(
    columns={
        **_RECORDING,
        "fold": pl.Int64(),  # of speakers with real recordings; null for voices that only generators have
        "development": pl.Boolean(),  # sources that no network learns from
        "media_id": pl.String(),
        "kind": pl.String(),
        "shard": pl.String(),
        "offset": pl.Int64(),
        "size": pl.Int64(),
    },
    nullable=frozenset({"fold"}),
    keys=("item_id",),
    checks=(NOT_EMPTY, _LABEL),
)

PAIRS = Contract(
    columns={
        "anchor": pl.String(),  # a real item, in a view
        "anchor_view": pl.String(),
        "other": pl.String(),
        "other_view": pl.String(),
        "positive": pl.Boolean(),
    },
    keys=("anchor", "anchor_view", "other", "other_view"),
    checks=(NOT_EMPTY,),
)

FITS = Contract(
    columns={
        "network": pl.String(),
        "generator": pl.String(),  # held out, with the speakers of the fold
        "fold": pl.Int64(),
        "epoch": pl.Int64(),  # 0 before training
        "loss": pl.Float64(),  # mean over the batches; null at epoch 0
        "weights": pl.String(),  # digest of all weights
        "positive": pl.Float64(),  # mean cosine of the development pairs that belong together; of aligners
        "negative": pl.Float64(),  # of those that do not
        "moved": pl.Float64(),  # mean distance between what enters the refiner and what leaves it
    },
    nullable=frozenset({"loss", "positive", "negative", "moved"}),
    keys=("network", "generator", "fold", "epoch"),
    checks=(NOT_EMPTY, trained(by=("network", "generator", "fold"))),
)

SCORES = Contract(
    columns={
        "variant": pl.String(),
        "held_out": pl.String(),  # generator that the variant has not seen
        "fold": pl.Int64(),  # speakers that it has not heard
        "item_id": pl.String(),
        "label": pl.String(),
        "source_item": pl.String(),
        "score": pl.Float64(),  # higher is more likely real
        "threshold": pl.Float64(),  # above it the item is called real: the equal-error cut of the development items
    },
    keys=("variant", "held_out", "fold", "item_id"),
    checks=(
        NOT_EMPTY,
        _LABEL,
        Check(
            expectation="expect_column_unique_value_count_to_be_between", arguments={"column": "score", "min_value": 3}
        ),
    ),
)
