"""What a long-running step is given: folders of its own, and a way to report progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Tell = Callable[[int, int, Mapping[str, float]], None]


def _unheard(step: int, of: int, figures: Mapping[str, float]) -> None:
    pass


@dataclass(frozen=True)
class Run:
    """One run of a step. Both folders exist when it begins.

    `scratch` survives kills: a rerun finds what the previous run left in it; it is removed when the product is
    published. `files` is empty at the beginning; what it holds at the end are the files of the product. `gpus` is how
    many the stage's needs give it.
    """

    scratch: Path
    files: Path
    tell: Tell = _unheard
    gpus: float = 0.0

    def progress(self, step: int, of: int, **figures: float) -> None:
        """Say which step of how many is done, with figures such as `loss`; `tokens` counts all since the beginning."""
        self.tell(step, of, figures)
