"""GPUs that actors of several models share: one model awake at a time, the others asleep."""

from __future__ import annotations

from typing import Any

from normloom.workers.resources import Resources


class Places:
    """Places in a cluster, each a GPU with its processors, in which one actor of each model is put."""

    def __init__(self) -> None:
        self._groups: list[Any] = []

    def options(self, resources: Resources, place: int) -> dict[str, Any]:
        """Return what to ask Ray for so that an actor gets a place, shared with those of other models."""
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        while len(self._groups) <= place:
            self._groups.append(placement_group([resources.actor]))
        share = 1 / (1 + resources.sleepers)
        return {
            "num_cpus": resources.actor["CPU"] * share,
            "num_gpus": resources.actor["GPU"] * share,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self._groups[place]),
        }

    def close(self) -> None:
        """Give the places back."""
        if not self._groups:
            return  # a build without actors imports no Ray

        from ray.util.placement_group import remove_placement_group

        while self._groups:
            remove_placement_group(self._groups.pop())
