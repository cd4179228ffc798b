"""What the tables of the study of missing modalities hold: one contract for each kind of table."""

from __future__ import annotations

import polars as pl

from normloom.core.contract import Check, Contract
from normloom.schemas.tables import NOT_EMPTY, trained, within

TEXT, IMAGE, NOTHING = "text", "image", "none"  # what is missing
SHARED, CONCAT, LATE, TEXT_ONLY, IMAGE_ONLY = "shared", "concat", "late_fusion", "text_only", "image_only"
METHODS = (SHARED, CONCAT, LATE, TEXT_ONLY, IMAGE_ONLY)

_LABEL = Check(expectation="expect_column_values_to_be_in_set", arguments={"column": "label", "value_set": [0, 1]})

ITEMS = Contract(
    columns={
        "item_id": pl.String(),
        "meme_id": pl.String(),
        "template": pl.String(),  # the picture that memes share
        "language": pl.String(),
        "text": pl.String(),
        "label": pl.Int8(),  # 1 is harmful
        "fold": pl.Int64(),  # memes of one template are in one
        "random_fold": pl.Int64(),  # memes at random, to show what that leaks
        "media_id": pl.String(),
        "shard": pl.String(),
        "offset": pl.Int64(),
        "size": pl.Int64(),
    },
    keys=("item_id",),
    checks=(NOT_EMPTY, _LABEL),
)

SCENARIOS = Contract(
    columns={
        "scenario_id": pl.String(),
        "missing": pl.String(),  # text, image or none
        "present": pl.Float64(),  # share of the items that have it
        "item_id": pl.String(),
        "text_of": pl.String(),  # the item whose text is seen, null if none is
        "image_of": pl.String(),
    },
    nullable=frozenset({"text_of", "image_of"}),
    keys=("scenario_id", "item_id"),
    checks=(NOT_EMPTY, within("missing", TEXT, IMAGE, NOTHING)),
)

FITS = Contract(
    columns={
        "network": pl.String(),
        "fold": pl.Int64(),
        "epoch": pl.Int64(),  # 0 before training
        "loss": pl.Float64(),  # mean over the batches; null at epoch 0
        "weights": pl.String(),  # digest of all weights
        "text_block": pl.String(),  # digest of the weights that text passes through after its projection
        "image_block": pl.String(),
    },
    nullable=frozenset({"loss", "text_block", "image_block"}),
    keys=("network", "fold", "epoch"),
    checks=(NOT_EMPTY, trained(by=("network", "fold"))),
)

PREDICTIONS = Contract(
    columns={
        "scenario_id": pl.String(),
        "item_id": pl.String(),
        "method": pl.String(),
        "probability": pl.Float64(),
        "threshold": pl.Float64(),  # of the fold, from its development items with both modalities
    },
    keys=("scenario_id", "item_id", "method"),
    checks=(
        NOT_EMPTY,
        within("method", *METHODS),
        Check(
            expectation="expect_column_values_to_be_between",
            arguments={"column": "probability", "min_value": 0, "max_value": 1},
        ),
    ),
)
