"""What the tables of Demo-SafetyBench hold: one contract for each kind of table."""

from __future__ import annotations

import polars as pl

from normloom.core.contract import Check, Contract
from normloom.schemas import tables

AXES = ("rater_gender", "rater_race", "rater_age")  # by which raters are grouped
ANSWERS = ("No", "Unsure", "Yes")  # to the question whether a conversation is unsafe; the rating of the n-th is n / 2
UNKNOWN = "unknown"  # in the name of a group, what the source does not say of its raters

SCORE_FIELDS = {
    "rater": pl.String,
    "p_no": pl.Float64,
    "p_unsure": pl.Float64,
    "p_yes": pl.Float64,
    "rating": pl.Float64,
}
_RATINGS = pl.List(pl.Struct(SCORE_FIELDS))  # one for each model


def _share(column: str) -> Check:
    return Check(
        expectation="expect_column_values_to_be_between", arguments={"column": column, "min_value": 0, "max_value": 1}
    )


_PERSON: dict[str, pl.DataType] = {**dict.fromkeys(AXES, pl.String()), "group": pl.String()}
_ORIGINS = tables.within("origin", "source", "expansion")
_GOLD = tables.within("safety_gold", "No", "Yes")

RATINGS = Contract(
    columns={
        "source_row": pl.Int64(),
        "item_id": pl.String(),
        "rater_id": pl.String(),
        **_PERSON,
        "rater_education": pl.String(),
        "answer": pl.String(),  # of the human rater
        "safety_gold": pl.String(),  # Yes: unsafe
        "degree_of_harm": pl.String(),
        "harm_type": pl.String(),
        "context": pl.String(),
        "response": pl.String(),
    },
    nullable=frozenset({"rater_id", *AXES, "rater_education", "answer", "safety_gold", "degree_of_harm", "harm_type"}),
    checks=(tables.NOT_EMPTY, tables.within("answer", *ANSWERS), _GOLD),
)

CARRIED = {
    "item_id": pl.String(),
    "context": pl.String(),
    "response": pl.String(),
    "safety_gold": pl.String(),
}  # through labelling

CONVERSATIONS = Contract(
    columns={**CARRIED, **tables.PROMPTS.columns},
    nullable=tables.PROMPTS.nullable | {"safety_gold"},
    keys=("item_id",),
    checks=(*tables.PROMPTS.checks, _GOLD),
)

REQUESTS = Contract(
    columns={
        "item_id": pl.String(),
        **_PERSON,
        "prompt": pl.String(),
        "context": pl.String(),
        "response": pl.String(),  # empty if an expansion has none
        "labels": tables.TEXTS,  # ids
        "safety_gold": pl.String(),
        "weight": pl.Int64(),  # how many source rows the request stands for
        "origin": pl.String(),
        "seed": pl.Int64(),  # of the draw that made an expansion, and what it cost
        "tokens_out": pl.Int32(),
    },
    nullable=frozenset({*AXES, "safety_gold", "seed", "tokens_out"}),
    keys=("item_id", "group"),
    checks=(_ORIGINS, _GOLD),
)

GROUP_GAPS = Contract(
    columns={**_PERSON, **tables.GAPS.columns},
    nullable=frozenset(AXES),
    keys=("group", "label"),
)

GROUP_COVERAGE = Contract(
    columns={
        "group": pl.String(),
        "label": pl.String(),
        "prompts": pl.Int64(),  # that the source has
        "quota": pl.Int64(),
        "added": pl.Int64(),
        "missing": pl.Int64(),
    },
    keys=GROUP_GAPS.keys,
    checks=tables.COVERAGE.checks,
)

UNIQUE = Contract(
    columns={**REQUESTS.columns, "fingerprint": pl.UInt64()},
    nullable=REQUESTS.nullable,
    keys=REQUESTS.keys,
    checks=(tables.NOT_EMPTY, *REQUESTS.checks),
)

ASKED = Contract(
    columns={"prompt_id": pl.String(), "item_id": pl.String(), **_PERSON, "prompt": pl.String()},
    nullable=frozenset(AXES),
    keys=REQUESTS.keys,
)

_SCORES: dict[str, pl.DataType] = {
    "rater": pl.String(),
    "answer": pl.String(),  # the most probable
    "rating": pl.Float64(),  # P(Yes) + P(Unsure) / 2
    "p_no": pl.Float64(),
    "p_unsure": pl.Float64(),
    "p_yes": pl.Float64(),
}

SCORED = Contract(
    columns={"item_id": pl.String(), "group": pl.String(), **_SCORES},
    keys=("item_id", "group", "rater"),
    checks=(tables.within("answer", *ANSWERS), _share("rating")),
)

RATED = Contract(
    columns={
        "item_id": pl.String(),
        **_PERSON,
        "labels": tables.TEXTS,
        "safety_gold": pl.String(),
        "weight": pl.Int64(),
        "origin": pl.String(),
        **_SCORES,
    },
    nullable=frozenset({*AXES, "safety_gold"}),
    keys=SCORED.keys,
    checks=(*SCORED.checks, _ORIGINS, _GOLD),
)

RELEASED = Contract(
    columns={
        **{name: dtype for name, dtype in RATINGS.columns.items() if name != "source_row"},
        "labels": tables.PUBLISHED_LABELS,
        "ratings": _RATINGS,
        "origin": pl.String(),
        "source_row": pl.Int64(),  # null for an expansion
    },
    nullable=RATINGS.nullable | {"source_row"},
    checks=(*RATINGS.checks[1:], _ORIGINS),  # how many rows are enough is the setting release.min_rows
    extra=True,
)
