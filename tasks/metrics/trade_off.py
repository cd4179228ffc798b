"""Trade-offs between dimensions of alignment: what fails one among what passes another (after arXiv 2602.11091)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

from normloom.tasks.metrics.bootstrap import percentile_interval
from normloom.tasks.metrics.figure import Figure

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class TradeOff(NamedTuple):
    """The share of responses that fail `failed` among those that pass `passed`."""

    passed: str
    failed: str
    figure: Figure


def trade_offs(passes: npt.NDArray[np.bool_], dimensions: Sequence[str]) -> list[TradeOff]:
    """Return the trade-off from each dimension to each other one.

    `passes` of shape (responses, dimensions) says which responses pass which dimension. Intervals are percentile
    bootstraps over responses. A trade-off is undefined where no response passes its first dimension.
    """
    pairs = permutations(range(len(dimensions)), 2)
    return [
        TradeOff(dimensions[a], dimensions[b], _trade_off(passes[:, a], passes[:, b], dimensions[a])) for a, b in pairs
    ]


def _trade_off(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], name: str) -> Figure:
    import numpy as np

    passing = int(one.sum())
    if passing == 0:
        return Figure(undefined=f"no response passes {name}")
    failing = int((one & ~other).sum())
    counts = np.array([len(one) - passing, passing - failing, failing])
    low, high = percentile_interval(counts, lambda drawn: drawn[:, 2] / drawn[:, 1:].sum(axis=1))
    return Figure(value=failing / passing, low=low, high=high, rows=passing)
