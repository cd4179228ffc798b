"""Trade-offs between dimensions: how often responses that hold in one fail in another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.taxonomy import DIMENSIONS
from normloom.steps.step import step
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output
from normloom.tasks.metrics.share import share

if TYPE_CHECKING:
    import numpy as np

RELEASED, CANDIDATES = "released responses", "all candidates"


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy",))
def trade_off(
    rows: pl.DataFrame,
    prompts: pl.DataFrame,
    *judged: pl.DataFrame,
    dimensions: tuple[str, ...] = DIMENSIONS,
    threshold: float = 0.5,
) -> Output:
    """Return the trade-off matrix, overall and per semantic type, and the share of responses that fail anything.

    `rows` are the released responses, `judged` all candidates of all rounds; candidates that were no text to judge
    (empty, nonsense, off the task) are left out.
    """
    read = ["prompt_id", "checks"]
    texts = (
        pl.concat([frame.filter(_judged()).select(read) for frame in judged]) if judged else rows.select(read).clear()
    )
    types = prompts.select(pl.col("row_id").alias("prompt_id"), "semantic_type")
    figures: list[dict[str, object]] = []
    for of, responses in ((RELEASED, rows.select(read)), (CANDIDATES, texts)):
        typed = responses.join(types, on="prompt_id", how="left", maintain_order="left")
        figures += _figures(typed, of=of, dimensions=dimensions, threshold=threshold)
        for kind in sorted(types["semantic_type"].unique()):
            figures += _figures(
                typed.filter(semantic_type=kind),
                of=of,
                dimensions=dimensions,
                threshold=threshold,
                slice_by="semantic_type",
                value=kind,
            )
    return figures_output(figures)


def _judged() -> pl.Expr:
    return (pl.col("verdict") != "discarded") | pl.col("reason").str.starts_with("fails")


def _figures(
    responses: pl.DataFrame,
    *,
    of: str,
    dimensions: Sequence[str],
    threshold: float,
    slice_by: str = "overall",
    value: str = "all",
) -> Iterator[dict[str, object]]:
    import numpy as np

    from normloom.tasks.metrics.trade_off import trade_offs

    passes = np.column_stack([_passed(responses["checks"], name, threshold) for name in dimensions])
    where = {"of": of, "slice_by": slice_by, "slice": value}
    for start, end, figure in trade_offs(passes, dimensions):
        yield figure_row(figure, metric="trade_off", axis=f"{start} to {end}", **where)
    yield figure_row(_failing(passes), metric="misaligned_rate", **where)


def _failing(passes: np.ndarray) -> Figure:
    """Return the share of responses that fail at least one dimension."""
    return share(int((~passes.all(axis=1)).sum()), len(passes), empty="no responses", what="responses")


def _passed(checks: pl.Series, name: str, threshold: float) -> np.ndarray:
    """Return whether each response passes a check, bool (responses,)."""
    check = pl.element().struct
    passed = (check.field("check") == name) & (check.field("probability") >= threshold)
    return checks.list.eval(passed).list.any().to_numpy()
