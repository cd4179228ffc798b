"""What a build may occupy of a machine or a cluster."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field


class Resources(BaseModel):
    """What a build may occupy. With `actors` 0 models are held by the build's own process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    actors: int = Field(1, ge=0)
    threads: int = Field(1, ge=1, description="threads of each actor")
    gpus: float = Field(0.0, ge=0, description="GPUs of each actor")
    address: str | None = Field(None, description="address of a running Ray cluster; without it one is started here")

    def places(self, total: Mapping[str, float]) -> int:
        """Return how many actors have a place in a cluster with these resources, as Ray counts them."""
        by_cpu = total.get("CPU", 0) // self.threads
        by_gpu = total.get("GPU", 0) // self.gpus if self.gpus else by_cpu
        return int(min(by_cpu, by_gpu))
