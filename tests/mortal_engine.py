"""An engine whose models lose it once, or do not wake up. A model's name is a folder for its notes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from normloom.core.errors import EngineDiedError
from normloom.core.models.protocol import Completion, GenerateRequest
from normloom.models.registry import Engine
from normloom.models.scripted import ScriptedModel

NAME = "mortal"
ENGINE = Engine(module="mortal_engine", attribute="MortalModel", version=1, rows=64, files=False, random=True)
DIED, SLEEPLESS = "died", "sleepless"


class MortalModel(ScriptedModel):
    """Loses its engine unless there is a note that it has; does not wake up if there is one that says so."""

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """Return what a scripted model does."""
        died = Path(self.name) / DIED
        if not died.exists():
            died.touch()
            raise EngineDiedError("the engine is gone")
        return super().generate(requests)

    def sleep(self) -> bool:
        """Sleep."""
        return True

    def wake(self) -> None:
        """Wake up."""
        if (Path(self.name) / SLEEPLESS).exists():
            raise RuntimeError("too tired")
