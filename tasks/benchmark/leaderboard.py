"""The leaderboard of one build: its models ranked by each overall figure, with what makes figures comparable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final, NamedTuple

import polars as pl
from pydantic import BaseModel, ConfigDict

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import benchmark_tables
from normloom.steps.step import step

DETECTOR: Final = "detector"
RESPONDER: Final = "responder"


class Metric(NamedTuple):
    """The mode that a metric belongs to, and whether more of it is better."""

    mode: str
    more_is_better: bool


METRICS = {
    "as": Metric(DETECTOR, more_is_better=True),
    "coverage": Metric(DETECTOR, more_is_better=True),
    "ffr": Metric(DETECTOR, more_is_better=False),
    "unreadable": Metric(DETECTOR, more_is_better=False),
    "alignment_rate": Metric(RESPONDER, more_is_better=True),
    "on_task_rate": Metric(RESPONDER, more_is_better=True),
    "unusable": Metric(RESPONDER, more_is_better=False),
}


class Entrant(BaseModel):
    """A model under test: its name in the settings and what it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    model_id: str
    revision: str | None = None
    engine: str


@step(makes=benchmark_tables.LEADERBOARD, fan_out=free("the overall figures"))
def leaderboard(
    rows: pl.DataFrame,
    items: pl.DataFrame,
    *,
    entrants: tuple[Entrant, ...],
    source: str,
    protocols: Mapping[str, str],
) -> Output:
    """Return the overall figures with the models' ranks in each.

    `source` is the data set as people name it, and `protocols` say how verdicts were made in each mode.
    """
    models = pl.DataFrame([entrant.model_dump() for entrant in entrants], schema_overrides=_TEXT)
    modes = {name: metric.mode for name, metric in METRICS.items()}
    overall = (
        rows.filter(pl.col("slice_by") == "overall", pl.col("metric").is_in(list(METRICS)))
        .rename({"of": "model"})
        .with_columns(
            mode=pl.col("metric").replace_strict(modes),
            source=pl.lit(source),
            dataset=pl.lit(content_digest(items)),
            items=pl.lit(items.height, dtype=pl.Int64),
        )
        .with_columns(protocol=pl.col("mode").replace_strict(dict(protocols)))
        .join(models, on="model", how="left", maintain_order="left")
    )
    ranked = with_ranks(overall, "mode", "metric", "axis")
    return Output(rows=ranked.select("row_id", *benchmark_tables.LEADERBOARD.columns))


_TEXT = {"revision": pl.String}


def with_ranks(rows: pl.DataFrame, *among: str) -> pl.DataFrame:
    """Return the rows with `rank` among those alike in `among`: 1 the best, equal values share theirs."""
    more = [name for name, metric in METRICS.items() if metric.more_is_better]
    badness = pl.when(pl.col("metric").is_in(more)).then(-pl.col("value")).otherwise(pl.col("value"))
    return rows.with_columns(rank=badness.rank("min").over(among).cast(pl.Int32))


def content_digest(items: pl.DataFrame) -> str:
    """Return a digest of the evaluated rows (12 hex digits), whatever their order and ids."""
    history = [] if items["history"].null_count() == items.height else ["history"]
    read = items.select("prompt", "response", "alignment", "dimensions", *history)
    lines = sorted(json.dumps(row, ensure_ascii=False) for row in read.iter_rows())
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=6).hexdigest()
