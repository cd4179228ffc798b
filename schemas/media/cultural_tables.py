"""What the tables of the cross-cultural evaluation hold: one contract for each kind of table."""

from __future__ import annotations

import polars as pl

from normloom.core.contract import Check, Contract
from normloom.schemas.tables import NOT_EMPTY, within

TEXTS_BY_LANGUAGE = pl.List(pl.Struct({"language": pl.String, "text": pl.String}))
LABELS_BY_COUNTRY = pl.List(pl.Struct({"country": pl.String, "label": pl.Int8}))

TRAIN, TEST = "train", "test"
ZERO, ONE = "zero", "one"  # exemplars in the prompt
NATIVE, ENGLISH = "native", "english"  # language of the prompt
ORIGINAL, TRANSLATED = "original", "translated"  # text of the meme
HATEFUL_FIRST, HARMLESS_FIRST = "hateful_first", "harmless_first"  # order of the options a and b
OK, NONE, BOTH = "ok", "none", "both"  # one letter, no letter, both letters in a reply
IMAGES = pl.List(
    pl.Struct({"media_id": pl.String, "shard": pl.String, "offset": pl.Int64, "size": pl.Int64})
)  # where the bytes of the pictures of a question are, in the order of their marks
CELL = ("language", "shot", "prompt_language", "text_version", "wording")

_HATEFUL = Check(expectation="expect_column_values_to_be_in_set", arguments={"column": "label", "value_set": [0, 1]})

MEMES = Contract(
    columns={
        "source_row": pl.Int64(),
        "meme_id": pl.String(),
        "template": pl.String(),  # the picture that memes share; memes of one template are in one split
        "texts": TEXTS_BY_LANGUAGE,  # those that the file has
        "labels": LABELS_BY_COUNTRY,  # 1 is hateful
    },
    keys=("meme_id",),
    checks=(NOT_EMPTY,),
)

JUDGEMENTS = Contract(
    columns={
        "meme_id": pl.String(),
        "country": pl.String(),
        "label": pl.Int8(),
        "raters": pl.Int64(),  # of the country; null if the ratings are not known, as the next two
        "hateful": pl.Int64(),  # raters who say so
        "is_majority": pl.Boolean(),  # whether the label is what most raters say
    },
    nullable=frozenset({"raters", "hateful", "is_majority"}),
    keys=("meme_id", "country"),
    checks=(
        NOT_EMPTY,
        _HATEFUL,
        Check(
            expectation="expect_column_values_to_be_in_set",
            arguments={"column": "is_majority", "value_set": [True]},
            on_fail="warn",
        ),
    ),
)

ITEMS = Contract(
    columns={
        "item_id": pl.String(),
        "meme_id": pl.String(),
        "language": pl.String(),
        "text": pl.String(),
        "translation": pl.String(),  # the English text; null for English
        "label": pl.Int8(),  # of the country whose language it is
        "split": pl.String(),
    },
    nullable=frozenset({"translation"}),
    keys=("item_id",),
    checks=(NOT_EMPTY, _HATEFUL, within("split", TRAIN, TEST)),
)

VECTORS = Contract(columns={"item_id": pl.String(), "vector": pl.List(pl.Float32)}, keys=("item_id",))

BACK_CHECK = Contract(
    columns={
        "item_id": pl.String(),
        "language": pl.String(),
        "cosine": pl.Float64(),  # of the text and its English version
        "lowest": pl.Boolean(),  # among the lowest 5 % of its language: read these
    },
    keys=("item_id",),
)

EXEMPLARS = Contract(
    columns={
        "item_id": pl.String(),
        "shot_id": pl.String(),
        "shot_text": pl.String(),
        "shot_translation": pl.String(),
        "shot_label": pl.Int8(),
        "cosine": pl.Float64(),
    },
    nullable=frozenset({"shot_translation"}),
    keys=("item_id",),
)

_CELLS = {
    "item_id": pl.String(),
    "meme_id": pl.String(),
    "language": pl.String(),
    "shot": pl.String(),
    "prompt_language": pl.String(),
    "text_version": pl.String(),
    "option_order": pl.String(),
    "wording": pl.String(),
}
_ORDERS = within("option_order", HATEFUL_FIRST, HARMLESS_FIRST)

GRID = Contract(
    columns={
        **_CELLS,
        "shot_id": pl.String(),
        "instruction": pl.String(),
        "context": pl.String(),
        "question": pl.String(),
        "images": IMAGES,  # pictures in the context; none if models are asked about text alone
    },
    nullable=frozenset({"shot_id"}),
    keys=("item_id", *CELL, "option_order"),
    checks=(
        NOT_EMPTY,
        _ORDERS,
        within("shot", ZERO, ONE),
        within("prompt_language", NATIVE, ENGLISH),
        within("text_version", ORIGINAL, TRANSLATED),
    ),
)

REPLIES = Contract(
    columns={
        **_CELLS,
        "model": pl.String(),
        "raw_reply": pl.String(),
        "p_hateful": pl.Float64(),  # of the two options, null for a reply that was written
    },
    nullable=frozenset({"p_hateful"}),
    keys=("model", "item_id", *CELL, "option_order"),
    checks=(NOT_EMPTY, _ORDERS),
)

PARSED = Contract(
    columns={**REPLIES.columns, "answer": pl.Int8(), "parse_status": pl.String()},
    nullable=REPLIES.nullable | {"answer"},
    keys=REPLIES.keys,
    checks=(*REPLIES.checks, within("parse_status", OK, NONE, BOTH)),
)
