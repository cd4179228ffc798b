"""Trade-offs between dimensions of alignment: what fails one among what passes another (after arXiv 2602.11091)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

from normloom.tasks.metrics.figure import Figure
from normloom.tasks.metrics.share import share

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

    `passes` of shape (responses, dimensions) says which responses pass which dimension. Intervals are Wilson's. A
    trade-off is undefined if too few responses pass its first dimension.
    """
    pairs = permutations(range(len(dimensions)), 2)
    return [
        TradeOff(dimensions[a], dimensions[b], _trade_off(passes[:, a], passes[:, b], dimensions[a])) for a, b in pairs
    ]


def _trade_off(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], name: str) -> Figure:
    return share(
        int((one & ~other).sum()), int(one.sum()), empty=f"no response passes {name}", what=f"responses pass {name}"
    )
