"""Whether knowledge helped: only if its own facts beat both none and those of another meme."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from normloom.schemas.media.meme_tables import ADAPTER, ENRICHED, PLAIN, SHUFFLED
from normloom.tasks.cross_align.figures import GAIN, RELATIVE_GAIN


def claims(figures: pl.DataFrame) -> Iterator[str]:
    """Yield a sentence for each task, from the figures of its verdicts."""
    gains = figures.filter(pl.col("metric").is_in([GAIN, RELATIVE_GAIN]), of=ENRICHED)
    for (task,), some in gains.group_by("slice", maintain_order=True):
        found = {(row["metric"], row["axis"]): row for row in some.iter_rows(named=True)}
        over = {than: found[GAIN, f"over {than}, {ADAPTER}"] for than in (PLAIN, SHUFFLED)}
        relative = {than: found[RELATIVE_GAIN, f"over {than}, {ADAPTER}"] for than in (PLAIN, SHUFFLED)}
        yield claim(str(task), over, relative)


def claim(task: str, over: Mapping[str, Mapping[str, Any]], relative: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what the gains over plain and shuffled say: a help only if both intervals lie above 0."""
    if undefined := next((row["undefined"] for row in over.values() if row["value"] is None), None):
        return f"{task}: nothing can be said of knowledge ({undefined})"
    told = "; ".join(
        f"{row['value']:+.3f} macro-F1 over {than} ({row['low']:+.3f} to {row['high']:+.3f})"
        + (f", {100 * relative[than]['value']:+.1f} %" if relative[than]["value"] is not None else "")
        for than, row in over.items()
    )
    low = [row["low"] > 0 for row in over.values()]
    if all(low):
        return f"{task}: knowledge helps: {told}"
    if over[PLAIN]["high"] < 0:
        return f"{task}: knowledge hurts: {told}"
    if low[0]:
        return f"{task}: facts of another meme do as well, so it is not what they say that helps: {told}"
    return f"{task}: no finding that knowledge helps: {told}"
