"""From signals to one quality for each reply: the length signal, the range of each signal, their weighted sum."""

from __future__ import annotations

import math
from typing import Literal, Self

import polars as pl
from pydantic import Field, model_validator

from normloom.core.fan_out import each, free
from normloom.core.rows.text import exact
from normloom.core.stage import Output, dropped_rows
from normloom.schemas import tables
from normloom.schemas.training import preference_tables
from normloom.schemas.training.preference_tables import BAD, LENGTH_FORMAT, NONE, OK, SIGNAL_NAMES
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.preferences.replies import signal_rows


class Failures(Args):
    """What becomes of replies that did not parse."""

    failures: Literal["as_published", "left_out"] = Field(
        "as_published", description="replies that did not parse: scored with the worst values, or not scored"
    )

    def scored(self, replies: pl.DataFrame) -> pl.DataFrame:
        """Return the replies that are scored."""
        kept = [OK] if self.failures == "left_out" else [OK, BAD]
        return replies.filter(pl.col("parse_status").is_in(kept))


class Length(Failures):
    """How the length of a reply is judged, and whether its JSON is.

    As published, the bonus is tested on the text that was taken out of the JSON, so it never fires.
    """

    bonus_tested_on: Literal["as_published", "raw"] = Field(
        "as_published", description="the text taken out of the reply (as_published), or the raw reply"
    )
    bonus: float = Field(
        0.3, ge=0, le=0.3, description="added to the quality if there is exactly one JSON object with a response"
    )


@step(
    makes=preference_tables.SIGNALS,
    name="length",
    fan_out=each((pl.col("parse_status") != NONE).cast(pl.Int64)),
)
def length(rows: pl.DataFrame, args: Length) -> Output:
    """Return L = max(0, 1 - ((words - a) / a)^2) + bonus, rounded to three digits, for each reply with a text.

    a is the whole part of the mean number of words of the replies that are scored (arXiv 2602.04493, and its code).
    """
    scored = rows.filter(pl.col("parse_status") != NONE)
    average = average_words(args.scored(scored))
    tested = "json_in_response" if args.bonus_tested_on == "as_published" else "json_in_raw"
    near = 1 - ((pl.col("words") - average) / average).pow(2)
    told = scored.select(
        "row_id",
        "gen_id",
        "parse_status",
        signal=pl.lit(LENGTH_FORMAT),
        value=(pl.max_horizontal(pl.lit(0.0), near) + pl.col(tested).cast(pl.Float64) * args.bonus).round(3),
        bonus=pl.col(tested),
    )
    return signal_rows(told, source=pl.lit(f"words, bonus {args.bonus_tested_on}"))


def average_words(replies: pl.DataFrame) -> int:
    """Return the whole part of the mean number of words, at least 1."""
    mean = replies["words"].mean()
    return max(int(mean), 1) if isinstance(mean, float) else 1


class Weights(Args):
    """What each signal counts in the quality; the paper's."""

    coherence: float = Field(0.14, ge=0, le=1, description="share of the quality")
    consistency: float = Field(0.20, ge=0, le=1, description="share of the quality")
    utterance_entailment: float = Field(0.18, ge=0, le=1, description="share of the quality")
    persona_distance: float = Field(0.16, ge=0, le=1, description="share of the quality")
    length_format: float = Field(0.32, ge=0, le=1, description="share of the quality")

    @model_validator(mode="after")
    def _are_one_whole(self) -> Self:
        if not math.isclose(total := sum(self.of(name) for name in SIGNAL_NAMES), 1, abs_tol=1e-9):
            raise ValueError(f"weights must add up to 1, not {exact(round(total, 9))}")
        return self

    def of(self, signal: str) -> float:
        """Return the weight of a signal."""
        weight: float = getattr(self, signal)
        return weight


class Quality(Failures):
    """How signals become a quality. The paper's text and its code disagree on two rules; both variants are here."""

    weights: Weights = Weights()
    length_scaled: Literal["as_published", "min_max"] = Field(
        "as_published", description="the length signal as it is (as_published), or scaled as the others are"
    )


@step(makes=preference_tables.RANGES, fan_out=free("one row for each signal"))
def ranges(rows: pl.DataFrame, args: Quality, parsed: pl.DataFrame) -> Output:
    """Return the range of each signal over the replies that are scored; `rows` are the signals."""
    kept = _counted(rows, parsed, args)
    found = (
        kept.with_columns(filled=pl.col("value").fill_null(pl.col("worst")))
        .group_by("signal", maintain_order=True)
        .agg(
            least=pl.col("filled").min(),
            most=pl.col("filled").max(),
            mean=pl.col("filled").mean(),
            valid_mean=pl.col("filled").filter(pl.col("parse_status") == OK).mean(),
            rows=pl.len().cast(pl.Int64),
            valid=(pl.col("parse_status") == OK).sum().cast(pl.Int64),
            source=pl.col("source").first(),
        )
    )
    rows = found.with_columns(parents=pl.lit([], dtype=tables.TEXTS), content="signal")
    return Output(rows=rows, attempts=found.height)


def _counted(signals: pl.DataFrame, parsed: pl.DataFrame, args: Quality) -> pl.DataFrame:
    """Return the signals of the replies that are scored, with their parse status."""
    told = signals.join(parsed.select("gen_id", "parse_status"), on="gen_id", how="left", maintain_order="left")
    return args.scored(told)


@step(makes=preference_tables.SCORED, name="quality", fan_out=each())
def quality(rows: pl.DataFrame, args: Quality, ranges: pl.DataFrame, *signals: pl.DataFrame) -> Output:
    """Return q = the weighted sum of the signals of each reply that is scored; `rows` are the parsed replies.

    Each signal but the length is scaled to [0, 1] over its range; one that is the same for all replies counts as 0.
    Replies without a text are dropped as `none`, those that are not scored as `bad`, and those that lack a signal as
    `no_signal`.
    """
    told = _counted(pl.concat(signals), rows, args).join(
        ranges.select("signal", "least", "most"), on="signal", how="left", maintain_order="left"
    )
    span = pl.col("most") - pl.col("least")
    filled = pl.col("value").fill_null(pl.col("worst"))
    scaled = pl.when(span > 0).then((filled - pl.col("least")) / span).otherwise(0.0)
    as_it_is = pl.lit(args.length_scaled == "as_published") & (pl.col("signal") == LENGTH_FORMAT)
    wide = told.with_columns(scaled=pl.when(as_it_is).then(filled).otherwise(scaled)).pivot(
        on="signal", on_columns=SIGNAL_NAMES, index="gen_id", values="scaled"
    )
    bonus = told.filter(signal=LENGTH_FORMAT).select("gen_id", bonus_fired="bonus")
    joined = rows.join(wide, on="gen_id", how="left", maintain_order="left").join(
        bonus, on="gen_id", how="left", maintain_order="left"
    )
    weighted = [args.weights.of(name) * pl.col(name) for name in SIGNAL_NAMES]
    scored = joined.with_columns(quality=sum(weighted, pl.lit(0.0)))  # in their order, on which sums of floats depend
    lacks = pl.col("quality").is_null()
    unscored = (pl.col("parse_status") == NONE) | (pl.lit(args.failures == "left_out") & (pl.col("parse_status") != OK))
    reason = pl.when(unscored).then(pl.col("parse_status")).otherwise(pl.lit("no_signal"))
    gone = scored.filter(lacks).select(*rows.columns)
    return Output(
        rows=scored.filter(~lacks).select("row_id", *preference_tables.SCORED.columns),
        dropped=dropped_rows(gone, reason=reason),
        metrics={"bonus_fired": float(scored.filter(~lacks)["bonus_fired"].sum())},
    )
