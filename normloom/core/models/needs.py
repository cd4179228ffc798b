"""The processes that a stage needs for itself, and their resources."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from normloom.core.models.protocol import ModelSpec


class Needs(BaseModel):
    """The processes that build a stage's parts, and the resources of each; not in keys, as the result is the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpus: float = Field(0.0, ge=0, description="GPUs of each process")
    threads: int = Field(1, ge=1, description="threads of each process")
    memory: float | None = Field(None, gt=0, description="GB of memory of each process")
    processes: int = Field(1, ge=1, description="number of processes")


class ProcessSpec(ModelSpec):
    """A process without a model, for the stage that `model` names."""

    engine: Literal["process"] = "process"  # that holds no model

    @classmethod
    def of(cls, stage: str, needs: Needs) -> ProcessSpec:
        """Return the processes that a stage needs."""
        return cls(
            model=stage, actors=needs.processes, threads=needs.threads, gpus=needs.gpus, memory=needs.memory, parts=1
        )
