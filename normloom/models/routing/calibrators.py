"""Temperatures that make a router's probabilities mean what they say: one for all, or one for each neighbourhood.

The probabilities of a row are softmax(log p / T) (Guo et al. 2017, arXiv 1706.04599). The global T is the one with the
least mean negative log-likelihood over the development rows. That of a neighbourhood is fitted to the k nearest of
these rows and held to the global one: with b = 1 / T it minimises

    sum over neighbours of -log softmax(b log p)[label] + strength / 2 * (b / b_global - 1) ** 2,

so `strength` is how much the global one counts, and a strength without end leaves nothing of the neighbours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from normloom.core.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

FILE = "calibrators.safetensors"
LOWEST, HIGHEST = 0.05, 20.0  # temperatures: rows that are all right, or all wrong, have no finite one
_STEPS = 60  # halvings of the interval, beyond what a float64 tells apart
_SETTINGS = ("temperature", "neighbours", "strength")


def tempered(log_probs: Array, temperature: float | Array) -> Array:
    """Return softmax(log p / T) of log-probabilities (..., adapters); T is one number, or (...)."""
    scaled = log_probs / np.asarray(temperature, dtype=np.float64)[..., None]
    scaled = scaled - scaled.max(-1, keepdims=True)
    grown: Array = np.exp(scaled)
    shares: Array = grown / grown.sum(-1, keepdims=True)
    return shares


def fitted_temperature(
    log_probs: Array, labels: npt.NDArray[np.int64], *, toward: float | None = None, strength: float = 0.0
) -> Array:
    """Return the temperature of each set of rows, (...): log-probabilities (..., rows, adapters), labels (..., rows).

    `toward` and `strength` hold it to another temperature. The loss is convex in 1 / T, so its derivative is followed
    to its zero by bisection, between `LOWEST` and `HIGHEST`.
    """
    chosen = np.take_along_axis(log_probs, labels[..., None], -1)[..., 0]
    low, high = (np.full(log_probs.shape[:-2], 1 / bound) for bound in (HIGHEST, LOWEST))
    for _ in range(_STEPS):
        middle = (low + high) / 2
        expected = (tempered(log_probs, 1 / middle[..., None]) * log_probs).sum(-1)
        slope = (expected - chosen).sum(-1)
        if toward is not None:
            slope = slope + strength * (middle * toward - 1) * toward
        low, high = np.where(slope < 0, middle, low), np.where(slope < 0, high, middle)
    found: Array = 2 / (low + high)
    return found


@dataclass(frozen=True)
class Calibrators:
    """The global temperature, and what temperatures of neighbourhoods are fitted to: the development rows.

    `states` are unit vectors (rows, width), `log_probs` (rows, adapters), `labels` (rows,).
    """

    temperature: float
    states: npt.NDArray[np.float32]
    log_probs: Array
    labels: npt.NDArray[np.int64]
    neighbours: int
    strength: float

    def local(self, states: npt.NDArray[np.float32], *, leaving_out_self: bool = False) -> Array:
        """Return the temperature of the neighbourhood of each state (states, width), by cosine.

        With `leaving_out_self` state i is row i of the development rows, and none of its own neighbours.
        """
        near = states @ self.states.T
        if leaving_out_self:
            np.fill_diagonal(near, -np.inf)
        count = min(self.neighbours, len(self.labels) - leaving_out_self)
        if count < 1:
            return np.full(len(states), self.temperature)
        nearest = np.argsort(-near, axis=1, kind="stable")[:, :count]
        return fitted_temperature(
            self.log_probs[nearest], self.labels[nearest], toward=self.temperature, strength=self.strength
        )

    def save(self, folder: Path) -> None:
        """Write them as a file of a product."""
        tensors = {"states": self.states, "log_probs": self.log_probs, "labels": self.labels}
        told = {name: json.dumps(getattr(self, name)) for name in _SETTINGS}
        save_file({name: np.ascontiguousarray(one) for name, one in tensors.items()}, folder / FILE, metadata=told)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read them from the files of a product; raises ModelError for files that hold none."""
        try:
            with safe_open(folder / FILE, framework="numpy") as stored:
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # no mapping
                told = {name: json.loads(stored.metadata()[name]) for name in _SETTINGS}
            return cls(**tensors, **told)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{folder / FILE} holds no calibrators: {error!r}") from error
