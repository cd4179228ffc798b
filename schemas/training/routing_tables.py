"""What the tables of AlignX hold on the way to its replies: variants of prompts, experts, router, calibrators."""

from __future__ import annotations

import polars as pl

from normloom.core.contract import Contract
from normloom.schemas.tables import MESSAGES, NOT_EMPTY, within
from normloom.schemas.training.alignx_tables import DEV, TEST, TRAIN

PLAIN, INJECTED = "plain", "injected"
GLOBAL, LOCAL = "global", "local"

INJECTED_PROMPTS = Contract(
    columns={
        "item_id": pl.String(),  # PROMPT_ID:VARIANT
        "prompt_id": pl.String(),  # row_id of the axis row
        "axis": pl.String(),
        "split": pl.String(),
        "variant": pl.String(),
        "prompt": pl.String(),  # as it is asked: with the principle of its axis before it if injected
    },
    keys=("prompt_id", "variant"),
    checks=(NOT_EMPTY, within("variant", PLAIN, INJECTED), within("split", TRAIN, DEV, TEST)),
)

ASKED = Contract(
    columns={
        "prompt_id": pl.String(),  # row_id of the axis row
        "axis": pl.String(),
        "history": MESSAGES,
        "prompt": pl.String(),
    },
    nullable=frozenset({"history"}),
    keys=("prompt_id",),
    checks=(NOT_EMPTY,),
)

TUNING_CURVE = Contract(
    columns={
        "axis": pl.String(),
        "step": pl.Int64(),  # 0 is the untrained policy
        "epoch": pl.Float64(),
        "loss": pl.Float64(),  # mean over the tokens of replies; null at step 0
        "held_out_loss": pl.Float64(),  # of the development rows; null between first and last step, and without any
        "learning_rate": pl.Float64(),
        "gradient_norm": pl.Float64(),
        "seconds": pl.Float64(),
    },
    nullable=frozenset({"loss", "held_out_loss", "learning_rate", "gradient_norm", "seconds"}),
    keys=("axis", "step"),
    checks=(NOT_EMPTY,),
)

MERGED_ADAPTERS = Contract(
    columns={
        "axis": pl.String(),  # of the expert
        "weight": pl.Float64(),  # with which its task vector counts
        "rank": pl.Int64(),  # the largest of its layers
        "norm": pl.Float64(),  # of the change of all weights, before it is weighed
    },
    keys=("axis",),
    checks=(NOT_EMPTY,),
)

TASK_VECTORS = Contract(
    columns={
        "axis": pl.String(),
        "vector": pl.List(pl.Float32()),  # mean over training rows of the state injected minus plain
        "norm": pl.Float64(),
        "prompts": pl.Int64(),
        "cosines": pl.List(pl.Float64()),  # with the task vector of each axis, in alphabetical order
    },
    keys=("axis",),
    checks=(NOT_EMPTY,),
)

ROUTER_CURVE = Contract(
    columns={
        "epoch": pl.Int64(),  # 0 is the untrained router
        "loss": pl.Float64(),  # mean negative log-likelihood of the axis over the training rows
        "dev_loss": pl.Float64(),  # over the development rows, which it does not learn from
        "weights": pl.String(),  # digest
    },
    nullable=frozenset({"dev_loss"}),
    keys=("epoch",),
    checks=(NOT_EMPTY,),
)

WEIGHED = Contract(
    columns={
        "prompt_id": pl.String(),
        "split": pl.String(),
        "axis": pl.String(),
        "log_probabilities": pl.List(pl.Float64()),  # of the axes in alphabetical order
        "gate": pl.List(pl.Float64()),  # the gate's weight of each of the router's experts
    },
    keys=("prompt_id",),
    checks=(NOT_EMPTY, within("split", TRAIN, DEV, TEST)),
)

CALIBRATORS = Contract(
    columns={
        "kind": pl.String(),  # global: one temperature; local: one for each neighbourhood
        "neighbourhood": pl.String(),  # development row (prompt_id) in whose middle it is, null for the global one
        "temperature": pl.Float64(),
        "ece_before": pl.Float64(),  # of the development rows; those of a neighbourhood without its own row
        "ece_after": pl.Float64(),
        "rows": pl.Int64(),  # that it was fitted to
    },
    nullable=frozenset({"neighbourhood"}),
    keys=("kind", "neighbourhood"),
    checks=(NOT_EMPTY, within("kind", GLOBAL, LOCAL)),
)
