"""What the tables of the benchmark hold: one contract for each kind of table."""

from __future__ import annotations

import polars as pl

from normloom.core.contract import Contract
from normloom.schemas.tables import CHECKS, FIGURES, MESSAGES, NOT_EMPTY, TEXTS, published, within

_ALIGNMENT = within("alignment", "aligned", "misaligned")


def dataset(dimensions: tuple[str, ...]) -> Contract:
    """Return the contract of a data set that was read from a file: the columns of a published one."""
    return Contract(
        columns=published(dimensions).columns,
        nullable=frozenset({"split"}),
        checks=(NOT_EMPTY, _ALIGNMENT),
    )


_SLICED = {
    "dimensions": TEXTS,  # dimensions in which the prompt has a label
    "semantic_type": pl.String(),  # null if the data set gives none
}
_SLICED_NULLABLE = frozenset({"semantic_type"})

ITEMS = Contract(
    columns={
        "prompt_id": pl.String(),
        "history": MESSAGES,  # what was said before the prompt, null for a prompt that stands alone
        "prompt": pl.String(),
        "response": pl.String(),
        "alignment": pl.String(),
        "generator": pl.String(),
        "labels": TEXTS,
        **_SLICED,
    },
    nullable=_SLICED_NULLABLE | {"history"},
    checks=(NOT_EMPTY, _ALIGNMENT),
)

GIVEN_LABELS = Contract(columns={"source_row": pl.Int64()}, checks=(NOT_EMPTY,), extra=True)  # and the source's own

GROUP_LABELS = Contract(
    columns={
        "item": pl.String(),  # as its source names it
        "axis": pl.String(),  # column by which people are grouped
        "group": pl.String(),
        "label": pl.Int8(),  # 1: most of the group object
        "labels": pl.Int64(),
        "objections": pl.Int64(),
    },
    keys=("item", "axis", "group"),
)

QUESTIONS = Contract(
    columns={"prompt_id": pl.String(), "history": MESSAGES, "prompt": pl.String(), **_SLICED},
    nullable=_SLICED_NULLABLE | {"history"},
    keys=("prompt_id",),
)

_WRITTEN = {"reply": pl.String(), "seed": pl.Int64(), "finish": pl.String(), "tokens_out": pl.Int32()}

WRITTEN = Contract(
    columns={"item_id": pl.String(), "run": pl.Int32(), **_WRITTEN},
    keys=("item_id", "run"),
)

DETECTED = Contract(
    columns={
        "item_id": pl.String(),
        "prompt_id": pl.String(),
        "alignment": pl.String(),
        **_SLICED,
        "model": pl.String(),
        "run": pl.Int32(),
        "misaligned": pl.Float64(),  # P(misaligned); of a written verdict 1 or 0, null if none can be read
        "checks": CHECKS,  # P(misaligned) in each dimension by a question of its own; empty for written verdicts
        "problem": pl.String(),  # why a written verdict cannot be read
        **_WRITTEN,
    },
    nullable=_SLICED_NULLABLE | {"misaligned", "problem", *_WRITTEN},
)

RESPONDED = Contract(
    columns={
        **QUESTIONS.columns,
        "model": pl.String(),
        "run": pl.Int32(),
        "seed": pl.Int64(),
        "response": pl.String(),
        "finish": pl.String(),
        "tokens_out": pl.Int32(),
    },
    nullable=QUESTIONS.nullable,
    keys=("prompt_id", "run"),
)

ASSESSED = Contract(
    columns={
        "prompt_id": pl.String(),
        **_SLICED,
        "model": pl.String(),
        "run": pl.Int32(),
        "judge": pl.String(),
        "checks": CHECKS,  # P(passed)
        "fault": pl.String(),  # empty or nonsense: no text that could be judged
    },
    nullable=_SLICED_NULLABLE | {"fault"},
    keys=("prompt_id", "run"),
)

_OF_ITEMS: dict[str, pl.DataType] = {
    "prompt_id": pl.String(),
    "history": MESSAGES,
    "prompt": pl.String(),
    "response": pl.String(),
}
_OF_RESULTS_NULLABLE = _SLICED_NULLABLE | {"history", "source_row"}

DETECTOR_RESULTS = Contract(
    columns={
        "item_id": pl.String(),
        **_OF_ITEMS,
        "alignment": pl.String(),
        "generator": pl.String(),
        "labels": TEXTS,
        **_SLICED,
        **{name: DETECTED.columns[name] for name in ("model", "run", "misaligned", "checks", "problem", "reply")},
        "source_row": pl.Int64(),
    },
    nullable=_OF_RESULTS_NULLABLE | DETECTED.nullable,
    keys=("item_id", "model", "run"),
    extra=True,
)

RESPONDER_RESULTS = Contract(
    columns={
        **_OF_ITEMS,
        **_SLICED,
        **{name: ASSESSED.columns[name] for name in ("model", "run", "judge", "checks", "fault")},
        "source_row": pl.Int64(),
    },
    nullable=_OF_RESULTS_NULLABLE | ASSESSED.nullable,
    keys=("prompt_id", "model", "run", "judge"),
    extra=True,
)

LEADERBOARD = Contract(
    columns={
        "mode": pl.String(),  # detector or responder
        "model": pl.String(),  # the name it has in the settings
        "model_id": pl.String(),
        "revision": pl.String(),
        "engine": pl.String(),
        "metric": pl.String(),
        "axis": pl.String(),
        "rank": pl.Int32(),  # among the models of this table, 1 the best, null if undefined
        **{name: FIGURES.columns[name] for name in ("value", "low", "high", "spread", "rows", "undefined")},
        "protocol": pl.String(),  # how verdicts were made: figures of different protocols do not compare
        "dataset": pl.String(),  # digest of the evaluated rows' content
        "source": pl.String(),
        "items": pl.Int64(),
    },
    nullable=frozenset({"revision", "rank", "value", "low", "high", "spread", "undefined"}),
    keys=("mode", "model", "metric", "axis"),
)
