"""What the tables of PersoPilot hold: one contract for each kind of table."""

from __future__ import annotations

import polars as pl

from normloom.core.contract import Contract
from normloom.schemas.tables import NOT_EMPTY, TEXTS, within

RANDOM, UNCERTAIN, DIVERSE = "random", "uncertain", "diverse"
STRATEGIES = (RANDOM, UNCERTAIN, DIVERSE)
TRAIN, TEST = "train", "test"
OK, BAD_FORMAT, EMPTY = "ok", "bad_format", "empty"
SOURCE, PERSON, MODEL = "source", "person", "model"  # who states a fact
UNKNOWN = "unknown"  # a topic

_FACT = {
    "username": pl.String(),
    "task": pl.String(),
    "topic": pl.String(),
    "relation": pl.String(),
    "object": pl.String(),
}

FACTS = Contract(
    columns={"source_row": pl.Int64(), **_FACT},
    keys=("username", "task", "topic", "relation", "object"),
    checks=(NOT_EMPTY,),
)

TOPICS = Contract(
    columns={"source_row": pl.Int64(), "task": pl.String(), "topic": pl.String()},
    keys=("task", "topic"),
    checks=(NOT_EMPTY,),
)

TURNS = Contract(
    columns={
        "username": pl.String(),
        "task": pl.String(),
        "text": pl.String(),
        "when": pl.Datetime("us", "UTC"),
    },
)

KNOWN = Contract(
    columns={**_FACT, "origin": pl.String()},
    keys=("username", "task", "topic", "relation", "object"),
    checks=(within("origin", SOURCE, PERSON, MODEL),),
)

PERSONAS = Contract(
    columns={
        **_FACT,
        "n_seen": pl.Int64(),  # users of whom the same is known
        "listed": pl.Boolean(),  # whether its task lists the topic
        "contradicts": TEXTS,  # relations of the same user that say the opposite of the same object
    },
    keys=("username", "task", "topic", "relation", "object"),
)

RECOMMENDATIONS = Contract(
    columns={
        "username": pl.String(),
        "task": pl.String(),
        "topic": pl.String(),
        "rank": pl.Int64(),
        "relation": pl.String(),
        "object": pl.String(),
        "users": pl.Int64(),  # others of whom this is known
    },
    keys=("username", "task", "topic", "rank"),
)

LABELS = Contract(
    columns={
        "source_row": pl.Int64(),
        "classification_task": pl.String(),
        "username": pl.String(),
        "label": pl.String(),
        "accepted": pl.Boolean(),  # whether it is the side that offers go to
        "persona": pl.String(),  # all that is known of the user, as one text
    },
    keys=("classification_task", "username"),
)

_PREDICTED = {
    "classification_task": pl.String(),
    "username": pl.String(),
    "accepted": pl.Boolean(),  # what the label says
    "predicted": pl.Boolean(),
    "confidence": pl.Float64(),  # 0 to 1
    "covered": pl.Boolean(),  # confident enough to act
    "origin": pl.String(),  # model: no label of a person is among predictions
}

PREDICTIONS = Contract(columns=_PREDICTED, keys=("classification_task", "username"), checks=(within("origin", MODEL),))

ROUNDS = Contract(
    columns={
        "strategy": pl.String(),
        "round": pl.Int64(),
        "labelled": pl.Int64(),  # users whose label was known when it was predicted
        "asked": pl.Boolean(),  # whether the label is learned after this round
        **_PREDICTED,
    },
    keys=("strategy", "round", "classification_task", "username"),
    checks=(within("strategy", *STRATEGIES), within("origin", MODEL)),
)

ASSISTANCE = Contract(
    columns={
        "classification_task": pl.String(),
        "username": pl.String(),
        "raw_reply": pl.String(),
        "score": pl.Float64(),  # 0 to 1, null if the reply cannot be read
        "reason": pl.String(),
        "cited": TEXTS,  # row ids of the facts that it rests on
        "parse_status": pl.String(),
    },
    nullable=frozenset({"score", "reason"}),
    keys=("classification_task", "username"),
    checks=(within("parse_status", OK, BAD_FORMAT, EMPTY),),
)

UTTERANCES = Contract(
    columns={
        "source_row": pl.Int64(),
        "tokens": TEXTS,
        "subject": pl.List(pl.Int64()),  # places of its tokens
        "object": pl.List(pl.Int64()),
        "relation": pl.String(),
        "split": pl.String(),
    },
    checks=(NOT_EMPTY, within("split", TRAIN, TEST)),
)

EXTRACTOR = Contract(
    columns={
        "model": pl.String(),  # spans or relation
        "epoch": pl.Int64(),
        "loss": pl.Float64(),
        "utterances": pl.Int64(),
    },
    keys=("model", "epoch"),
)

TRIPLES = Contract(
    columns={
        "text": pl.String(),
        "subject": pl.String(),
        "relation": pl.String(),
        "object": pl.String(),
        "confidence": pl.Float64(),
        "parse_status": pl.String(),
        "span_right": pl.Boolean(),
        "relation_right": pl.Boolean(),
        "true_relation": pl.String(),
    },
    nullable=frozenset({"subject", "object"}),
    checks=(within("parse_status", OK, EMPTY),),
)
