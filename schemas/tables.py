"""What the tables of a build hold: one contract for each kind of table."""

from __future__ import annotations

import polars as pl

from normloom.core.contract import Check, Contract

LABELS = pl.List(pl.Struct({"dimension": pl.String, "label": pl.String, "probability": pl.Float32}))
CHECKS = pl.List(pl.Struct({"check": pl.String, "probability": pl.Float32}))
TEXTS = pl.List(pl.String)
MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))

DIMENSIONS_OF_LABELS = pl.col("labels").list.eval(pl.element().struct.field("dimension").unique(maintain_order=True))


def within(column: str, *allowed: str) -> Check:
    """Return the check that a column holds nothing else than the allowed values."""
    return Check(
        expectation="expect_column_values_to_be_in_set", arguments={"column": column, "value_set": list(allowed)}
    )


def trained(*, by: tuple[str, ...], weights: str = "weights", step: str = "epoch") -> Check:
    """Return the check that in each group the digest of the weights changed and the loss fell; it warns."""
    return Check(
        expectation="expect_training_to_have_worked",
        arguments={"column": "loss", "weights": weights, "step": step, "by": list(by)},
        on_fail="warn",
    )


def _filled(column: str) -> Check:
    return Check(expectation="expect_column_value_lengths_to_be_between", arguments={"column": column, "min_value": 1})


NOT_EMPTY = Check(expectation="expect_table_row_count_to_be_between", arguments={"min_value": 1})


def named_by_content(contract: Contract) -> dict[str, pl.DataType]:
    """Return the columns of rows that a stage function names by parents and content, not by one input row."""
    return {"parents": pl.List(pl.String()), "content": pl.String(), **contract.columns}


_PROMPT = {
    "source_row": pl.Int64(),  # the record that a prompt came from, null for an expansion
    "history": MESSAGES,  # system text and turns before the prompt, null for a prompt that stands alone
    "prompt": pl.String(),
    "origin": pl.String(),  # source or expansion
    "reference": TEXTS,  # label ids that the source gives, null if it gives none
}
_ORIGINS = within("origin", "source", "expansion")

PROMPTS = Contract(
    columns=_PROMPT,
    nullable=frozenset({"history", "reference"}),
    checks=(NOT_EMPTY, _filled("prompt"), _ORIGINS),
)

CALIBRATION = Contract(
    columns={
        "dimension": pl.String(),
        "prompts": pl.Int64(),
        "coefficients": pl.String(),
        "vectors": pl.List(pl.List(pl.Float32)),  # of each label, in the taxonomy's order, then of none
    },
    keys=("dimension",),
    checks=(NOT_EMPTY,),
)

SHORTLISTED = Contract(
    columns={**PROMPTS.columns, "shortlist": TEXTS}, nullable=PROMPTS.nullable, checks=PROMPTS.checks
)

LABEL_SCORES = Contract(
    columns={
        "prompt_id": pl.String(),
        "probabilities": pl.List(pl.Float32),  # of every label in the taxonomies' order, null if it was not asked
    },
    keys=("prompt_id",),
)

EMBEDDED = Contract(columns={"prompt_id": pl.String(), "vector": pl.List(pl.Float32)}, keys=("prompt_id",))

_LABELLED = {
    **_PROMPT,
    "seed": pl.Int64(),  # of the draw that made an expansion, and what it cost
    "tokens_out": pl.Int32(),
    "labels": LABELS,  # those kept; the probability is null if an expansion was drawn for the label
    "probabilities": pl.List(pl.Float32),  # of every label in the taxonomies' order, null if it was not asked
}

LABELLED = Contract(
    columns=_LABELLED,
    nullable=PROMPTS.nullable | {"source_row", "seed", "tokens_out"},
    checks=(_filled("prompt"), _ORIGINS),
)

AGREEMENT = Contract(
    columns={
        "dimension": pl.String(),
        "measure": pl.String(),
        "value": pl.Float64(),
        "low": pl.Float64(),
        "high": pl.Float64(),
        "rows": pl.Int64(),  # what the measure counts: kept labels, reference labels or prompts
        "prior": pl.Float64(),  # what always naming the most frequent label would reach
        "prompts": pl.Int64(),  # with a reference label in the dimension
        "undefined": pl.String(),  # why there is no value
    },
    nullable=frozenset({"value", "low", "high", "prior", "undefined"}),
    keys=("dimension", "measure"),
)

GAPS = Contract(
    columns={
        "dimension": pl.String(),
        "label": pl.String(),
        "prompts": pl.Int64(),
        "quota": pl.Int64(),
        "examples": TEXTS,
    },
    keys=("label",),
)

DUPLICATES = Contract(
    columns={
        "duplicate_id": pl.String(),  # the row that goes
        "winner": pl.String(),  # the row that stays instead
        "reason": pl.String(),
        "distance": pl.Int64(),  # of their codes, in bits
        "jaccard": pl.Float64(),  # similarity of their shingles
    },
    keys=("duplicate_id",),
    checks=(within("reason", "exact_duplicate", "near_duplicate"),),
)

DUPLICATES_BY_MEANING = Contract(
    columns={**DUPLICATES.columns, "similarity": pl.Float64()},  # cosine of their vectors
    keys=DUPLICATES.keys,
    checks=DUPLICATES.checks,
)

UNIQUE = Contract(  # without the probabilities of all labels, which nothing after this reads: 0.5 kB a prompt
    columns={
        **{name: dtype for name, dtype in _LABELLED.items() if name != "probabilities"},
        "fingerprint": pl.UInt64(),
    },
    nullable=LABELLED.nullable,
    checks=(NOT_EMPTY, *LABELLED.checks),
)

ASKED = Contract(columns={"prompt_id": pl.String(), "prompt": pl.String()}, keys=("prompt_id",))

TYPE_SCORES = Contract(
    columns={
        "prompt_id": pl.String(),
        "type_logprobs": pl.List(pl.Float32),  # of the code of each type, in the taxonomy's order
    },
    keys=("prompt_id",),
)

TYPED = Contract(
    columns={
        **UNIQUE.columns,
        "semantic_type": pl.String(),
        "type_logprobs": TYPE_SCORES.columns["type_logprobs"],
    },
    nullable=UNIQUE.nullable,
    checks=UNIQUE.checks,
)

COVERAGE = Contract(
    columns={
        "dimension": pl.String(),
        "label": pl.String(),
        "before": pl.Int64(),
        "quota": pl.Int64(),
        "added": pl.Int64(),
        "missing": pl.Int64(),
    },
    keys=("label",),
    checks=(
        Check(
            expectation="expect_column_max_to_be_between",
            arguments={"column": "missing", "max_value": 0},
            on_fail="warn",
        ),
    ),
)

_ATTEMPT = {
    "prompt_id": pl.String(),
    "history": MESSAGES,
    "prompt": pl.String(),
    "targets": TEXTS,  # dimensions in which the prompt has a label
    "generator": pl.String(),
    "round": pl.Int32(),
    "wanted": pl.String(),  # the alignment that a resampling round is after
    "diagnosis": pl.String(),
}
_VERDICT = {
    "checks": CHECKS,
    "verdict": pl.String(),  # aligned, misaligned or discarded
    "reason": pl.String(),
    "margin": pl.Float32(),
}

CANDIDATES = Contract(
    columns={
        **_ATTEMPT,
        "attempt": pl.Int32(),
        "seed": pl.Int64(),
        "response": pl.String(),
        "finish": pl.String(),
        "tokens_out": pl.Int32(),
        "reasoning": pl.String(),  # what the model thought before it answered, if it says so
    },
    nullable=frozenset({"history", "wanted", "diagnosis", "reasoning"}),
    checks=(within("finish", "stop", "length"),),
)

CHECKED = Contract(
    columns={"candidate_id": pl.String(), "checks": CHECKS},  # P(passed), in the order of the questions
    keys=("candidate_id",),
)

JUDGED = Contract(
    columns={**CANDIDATES.columns, **_VERDICT},
    nullable=CANDIDATES.nullable,
    checks=(
        within("verdict", "aligned", "misaligned", "discarded"),
        Check(
            expectation="expect_column_values_to_be_between",
            arguments={"column": "margin", "min_value": 0, "max_value": 1},
        ),
    ),
)

SHORTFALL = Contract(
    columns={
        "prompt_id": pl.String(),
        "history": MESSAGES,
        "prompt": pl.String(),
        "targets": TEXTS,
        "generator": pl.String(),
        "wanted": pl.String(),
        "response": pl.String(),  # the candidate that came nearest, empty if there was none
        "verdict": pl.String(),
        "reason": pl.String(),
    },
    nullable=frozenset({"history"}),
    keys=("prompt_id", "generator", "wanted"),
    checks=(within("wanted", "aligned", "misaligned"),),
)

DIAGNOSED = Contract(
    columns={**SHORTFALL.columns, "diagnosis": pl.String(), "seed": pl.Int64(), "tokens_out": pl.Int32()},
    nullable=SHORTFALL.nullable,
    keys=SHORTFALL.keys,
    checks=SHORTFALL.checks,
)

SELECTED = Contract(
    columns={
        "prompt_id": pl.String(),
        "history": MESSAGES,
        "prompt": pl.String(),
        "generator": pl.String(),
        "round": pl.Int32(),
        "response": pl.String(),
        "alignment": pl.String(),
        "checks": CHECKS,
        "margin": pl.Float32(),
    },
    nullable=frozenset({"history"}),
    keys=("prompt_id", "generator", "alignment"),
    checks=(within("alignment", "aligned", "misaligned"),),
)

PROMPT_SPLITS = Contract(
    columns={"prompt_id": pl.String(), "split": pl.String(), "cluster": pl.String()},
    keys=("prompt_id",),
    checks=(within("split", "train", "validation", "test"),),
)

SPLIT = Contract(
    columns={**SELECTED.columns, "split": pl.String(), "cluster": pl.String()},
    nullable=SELECTED.nullable,
    keys=SELECTED.keys,
    checks=(*PROMPT_SPLITS.checks, *SELECTED.checks),
)

PUBLISHED_LABELS = pl.List(pl.Struct({"label": pl.String, "probability": pl.Float32}))


def published(dimensions: tuple[str, ...], carry: tuple[str, ...] = ()) -> Contract:
    """Return the contract of a published data set: labels by dimension, and texts of the prompts in `carry`.

    `messages` are the whole conversation: what came before the prompt, the prompt, the response. The columns that a
    user's source brings stand after these.
    """
    return Contract(
        columns={
            "prompt_id": pl.String(),
            "prompt": pl.String(),
            "response": pl.String(),
            "messages": MESSAGES,
            "alignment": pl.String(),
            "generator": pl.String(),
            **dict.fromkeys(dimensions, PUBLISHED_LABELS),
            **dict.fromkeys(carry, pl.String()),
            "split": pl.String(),
            "origin": pl.String(),
            "source_row": pl.Int64(),
        },
        nullable=frozenset({"source_row"}),
        keys=SELECTED.keys,
        checks=(_filled("response"), _ORIGINS, *SPLIT.checks),
        extra=True,
    )


SOURCE_COLUMNS = Contract(columns={"source_row": pl.Int64()}, keys=("source_row",), extra=True)


FIGURES = Contract(
    columns={
        "metric": pl.String(),
        "of": pl.String(),  # the model, rater or panel that is measured
        "axis": pl.String(),  # what the metric compares (groups of `gender`, `safety to value`), empty if nothing
        "slice_by": pl.String(),  # which rows: overall, or a column such as domain
        "slice": pl.String(),  # the value of that column, `all` overall
        "value": pl.Float64(),
        "low": pl.Float64(),
        "high": pl.Float64(),
        "spread": pl.Float64(),  # standard deviation over runs
        "rows": pl.Int64(),
        "undefined": pl.String(),  # why there is no value
    },
    nullable=frozenset({"value", "low", "high", "spread", "undefined"}),
    keys=("metric", "of", "axis", "slice_by", "slice"),
    checks=(Check(expectation="expect_metric_to_be_clean", on_fail="warn"),),
)
