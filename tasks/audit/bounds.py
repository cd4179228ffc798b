"""Bounds that an audited figure must reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

import polars as pl
from pydantic import Field

from normloom.core.errors import UsageError
from normloom.core.rows.text import exact
from normloom.steps.args import Args
from normloom.tasks.audit.corrected import POWERED

BOUNDED = ("share", "precision", "sensitivity", "specificity")


class Bound(Args):
    """What a figure must reach: the lower bound of its 95 % interval is at least `least`."""

    metric: str
    of: str
    least: float = Field(gt=0, lt=1)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "precision misaligned 0.9"; raises UsageError."""
        parts = text.split()
        try:
            metric, of, least = parts[0], " ".join(parts[1:-1]), float(parts[-1])
        except (IndexError, ValueError):
            metric, of, least = "", "", 0.0
        if metric not in BOUNDED or not of or not 0 < least < 1:
            raise UsageError(
                f'bound {text!r}: expected FIGURE VERDICT NUMBER, such as "precision misaligned 0.9"; '
                f"figures: {', '.join(BOUNDED)}"
            )
        return cls(metric=metric, of=of, least=least)

    def __str__(self) -> str:
        return f"{self.metric} of {self.of} at least {exact(self.least)}, lower bound"


def missed(figures: pl.DataFrame, bounds: Sequence[Bound]) -> Iterator[str]:
    """Yield each bound that the figures of an audit do not reach, with what they are."""
    overall = figures.filter(pl.col("axis").is_in(["", POWERED]), pl.col("metric").is_in(BOUNDED), slice_by="overall")
    for bound in bounds:
        found = overall.filter(metric=bound.metric, of=bound.of)
        if found.is_empty():
            known = overall.select(pl.format("{} of {}", "metric", "of")).to_series().unique(maintain_order=True)
            yield f"{bound}: the audit has no such figure; it has {', '.join(known) or 'none'}"
            continue
        row = found.row(0, named=True)
        if row["value"] is None:
            yield f"{bound}: it has no value ({row['undefined']})"
        elif row["low"] < bound.least:
            yield f"{bound}: it is {row['value']:.3f}, at least {row['low']:.3f} ({row['rows']} answers)"
