"""What of each item is seen: all of it, or less and less of one modality."""

from __future__ import annotations

import polars as pl
from pydantic import Field

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas.media import modality_tables
from normloom.schemas.media.modality_tables import IMAGE, NOTHING, TEXT
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.missing_modality.items import position

COMPLETE, OCR = "complete", "ocr"
SHARES = (1.0, 0.9, 0.7, 0.5, 0.3, 0.1, 0.0)


class Missing(Args):
    """How much of a modality is left."""

    shares: tuple[float, ...] = Field(SHARES, min_length=2, description="shares of the items that have the modality")


def scenario_id(missing: str, present: float) -> str:
    """Return the name of a scenario: `text_070` has the text of 70 % of the items."""
    return f"{missing}_{round(100 * present):03d}"


def permuted(modality: str) -> str:
    """Return the name of the scenario in which each item is seen with another item's modality."""
    return f"permuted_{modality}"


@step(
    makes=modality_tables.SCENARIOS,
    fan_out=free("one row for each item and scenario"),
)
def scenarios(rows: pl.DataFrame, args: Missing) -> Output:
    """Return a row for each item and scenario.

    Items are ordered by a hash, and the first of them keep the modality: those that have it at 30 % are among those
    that have it at 50 %. In the permuted scenarios each item is seen with the modality of the next one in that order.
    """
    made = [_named(rows, COMPLETE, NOTHING, 1.0)]
    for modality in (TEXT, IMAGE):
        ordered = sorted(rows["item_id"], key=lambda item: position(f"{modality}:{item}"))
        others = dict(zip(ordered, [*ordered[1:], ordered[0]], strict=True))
        seen = f"{modality}_of"
        for share in args.shares:
            kept = ordered[: round(share * len(ordered))]
            one = _named(rows, scenario_id(modality, share), modality, share)
            made.append(one.with_columns(pl.when(pl.col("item_id").is_in(kept)).then(pl.col(seen)).alias(seen)))
        mixed = _named(rows, permuted(modality), NOTHING, 1.0)
        made.append(mixed.with_columns(pl.col(seen).replace_strict(others)))
    return _output(pl.concat(made))


@step(makes=modality_tables.SCENARIOS, name="ocr_scenario", fan_out=free("one row for each item that was read"))
def ocr_scenario(rows: pl.DataFrame) -> Output:
    """Return what is seen if the text is what OCR reads: none where it reads nothing."""
    made = _named(rows, OCR, TEXT, float((rows["ocr_text"] != "").mean() or 0.0))  # type: ignore[arg-type]  # a share
    return _output(made.with_columns(text_of=pl.when(rows["ocr_text"] != "").then("item_id")))


def _named(rows: pl.DataFrame, scenario: str, missing: str, present: float) -> pl.DataFrame:
    return rows.select(
        "row_id",
        "item_id",
        scenario_id=pl.lit(scenario),
        missing=pl.lit(missing),
        present=pl.lit(present),
        text_of=pl.col("item_id"),
        image_of=pl.col("item_id"),
    )


def _output(made: pl.DataFrame) -> Output:
    return Output(rows=made.with_columns(content="scenario_id"), attempts=made.height)
