"""What a long-running step gets: its own folders, and a way to report progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Tell = Callable[[int, int, Mapping[str, float]], None]


def _unheard(step: int, of: int, figures: Mapping[str, float]) -> None:
    pass


@dataclass(frozen=True)
class Run:
    """One run of a step. Both folders exist when it starts.

    `scratch` survives kills, so a rerun finds what the previous run left; it is removed when the product is published.
    `files` is empty at the start; its content at the end is the product's files. `gpus` is the number of GPUs that the
    stage's needs give it.
    """

    scratch: Path
    files: Path
    tell: Tell = _unheard
    gpus: float = 0.0

    def progress(self, step: int, of: int, **figures: float) -> None:
        """Report that step N of M is done, with figures like `loss`; `tokens` is the total since the start."""
        self.tell(step, of, figures)
