"""What a build may occupy of a machine or a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from math import ceil, floor

from pydantic import BaseModel, ConfigDict, Field, model_validator

from normloom.core.models.model_roles import RolesSpec
from normloom.core.models.needs import Needs, ProcessSpec
from normloom.core.models.protocol import ModelSpec
from normloom.models.adapters import loaded_for
from normloom.models.registry import engine_of

GB = 1e9
ROUNDING = 1e-6  # fractions of a processor that add up to one must count as one


class Resources(BaseModel):
    """What a build may occupy. With `actors=0` the build's own process holds the models."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    actors: int = Field(1, ge=0, description="processes of each model")
    max_actors: int | None = Field(None, ge=1, description="maximum actors on a growing cluster")
    threads: int = Field(1, ge=1, description="threads of each actor")
    cpus: float | None = Field(None, gt=0, description="CPUs reserved for each actor; by default its threads")
    gpus: float = Field(0.0, ge=0, description="GPUs of each actor")
    sleepers: int = Field(0, ge=0, description="idle models that may sleep while another uses their GPU")
    memory: float | None = Field(None, gt=0, description="GB of memory reserved for each actor")
    needs: Mapping[str, Needs] = Field(
        default_factory=dict, description="own processes for stages, by name: {select: {processes: 4}}"
    )
    address: str | None = Field(None, description="address of a running Ray cluster; without it one is started here")

    @model_validator(mode="after")
    def _consistent(self) -> Resources:
        if self.max_actors is not None and self.max_actors < self.actors:
            raise ValueError(f"max_actors {self.max_actors} is less than actors {self.actors}")
        if self.sleepers and self.gpus != 1:
            raise ValueError(f"sleepers need actors with one GPU each, gpus is {self.gpus:g}")
        if self.sleepers and self.max_actors is not None:
            raise ValueError("sleepers and max_actors exclude each other: a crew that grows has no place of its own")
        return self

    def of(self, spec: ModelSpec) -> Resources:
        """Return what a model occupies: its own settings if it has them."""
        if self.actors == 0:
            return self if spec.threads is None else self.model_copy(update={"threads": spec.threads})
        if isinstance(spec, RolesSpec):
            uses = list(spec.roles.values())
            loaded = {one.model_dump_json(): one for one in (loaded_for(use, uses) for use in uses)}
            return self._together([self.of(one) for one in loaded.values()])
        own = {name: getattr(spec, name) for name in ("actors", "threads", "gpus", "memory")}
        remote = {"actors": 1, "max_actors": None, "gpus": 0.0} if engine_of(spec).remote else {}
        changed = remote | {name: value for name, value in own.items() if value is not None}
        if "threads" in changed:
            changed["cpus"] = None
        if isinstance(spec, ProcessSpec):
            changed |= {"max_actors": None, "memory": spec.memory, "sleepers": 0}
        if any(changed.get(name, getattr(self, name)) != getattr(self, name) for name in ("threads", "gpus")):
            changed["sleepers"] = 0  # the places are cut for actors of the build's size
        most = changed.get("max_actors", self.max_actors)
        if most is not None:
            changed["max_actors"] = max(most, changed.get("actors", self.actors))
        return self.model_copy(update=changed)

    def _together(self, roles: Sequence[Resources]) -> Resources:
        """Return what actors occupy that hold the models of several roles: the GPUs and the memory of all of them."""
        gpus, threads = sum(one.gpus for one in roles), max(one.threads for one in roles)
        actors, memory = max(one.actors for one in roles), sum(one.memory or 0.0 for one in roles) or None
        changed = {"gpus": gpus, "threads": threads, "actors": actors, "max_actors": None, "sleepers": 0}
        changed["memory"] = memory
        return self.model_copy(update={**changed, "cpus": max((one.cpus or 0.0) for one in roles) or None})

    @property
    def actor(self) -> dict[str, float]:
        """What one actor takes, as Ray counts it."""
        memory = {"memory": self.memory * GB} if self.memory else {}
        return {"CPU": self.cpus or float(self.threads), "GPU": self.gpus, **memory}

    @property
    def in_words(self) -> str:
        """What one actor takes, in words."""
        memory = [f"{self.memory:g} GB"] if self.memory else []
        return ", ".join([f"{self.threads} threads", f"{self.gpus:g} GPUs", *memory])

    def processors(self, uses: Iterable[ModelSpec]) -> int:
        """Return how many processors a Ray of this machine's own says it has: at least what its models ask for."""
        asked = [wanted.actor["CPU"] * wanted.actors for wanted in (self, *map(self.of, uses))]
        return max(os.cpu_count() or 1, ceil(max(asked)))

    def places(self, total: Mapping[str, float]) -> int:
        """Return how many actors have a place in a cluster with these resources."""
        return min(floor(total.get(name, 0) / share + ROUNDING) for name, share in self.actor.items() if share)


def taken(crews: Iterable[tuple[Resources, int]]) -> dict[str, float]:
    """Return what crews of these sizes take together."""
    total = {"CPU": 0.0, "GPU": 0.0}
    for resources, actors in crews:
        for name, share in resources.actor.items():
            total[name] = total.get(name, 0.0) + share * actors
    return total


def fit(crews: Iterable[tuple[Resources, int]], total: Mapping[str, float]) -> bool:
    """Say whether crews of these sizes fit into a cluster side by side."""
    return all(amount <= total.get(name, 0) + ROUNDING for name, amount in taken(crews).items())
