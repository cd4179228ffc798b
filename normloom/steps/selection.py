"""Which stages of a flow a build updates, leaves alone, or rebuilds."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from normloom.core.errors import UsageError
from normloom.core.stage import Stage
from normloom.core.table import Manifest

_WHERE = re.compile(r"\s+where\s+", re.IGNORECASE)

Again = Literal["all", "quarantined"]  # what of a table that is there is made once more


@dataclass(frozen=True, kw_only=True)
class Selection:
    """By default every stage is brought up to date.

    With `only`, just those stages; for `STAGE where CONDITION` only the parts that read matching rows, after its
    inputs are brought up to date. With `start`, that stage and everything downstream. Their other inputs are used as
    they are. Stages in `force` are rebuilt even if nothing changed; those in `replay` only in the parts with
    quarantined rows. With `fresh`, a time in ISO 8601, every chosen stage with an older table is rebuilt.
    """

    only: tuple[str, ...] = ()
    start: str | None = None
    force: tuple[str, ...] = ()
    replay: tuple[str, ...] = ()
    fresh: str | None = None

    @property
    def partial(self) -> bool:
        """Whether stages are left out."""
        return bool(self.only or self.start)

    @property
    def remakes(self) -> bool:
        """Whether stages are rebuilt that could be reused."""
        return bool(self.force or self.replay or self.fresh)

    def where(self, stage: str) -> str | None:
        """Return the condition on the rows that a stage reads, None to build all of it."""
        return self._only.get(stage)

    @property
    def _only(self) -> dict[str, str | None]:
        """The stages of `only`, with the condition of each."""
        named = (_WHERE.split(one.strip(), maxsplit=1) for one in self.only)
        return {name: rest[0] if rest else None for name, *rest in named}

    def again(self, stage: str, table: Manifest | None = None) -> Again | None:
        """Return what of a stage's existing table to rebuild even if nothing changed."""
        if stage in self.force or (self.fresh and table and table.made_before(self.fresh)):
            return "all"
        return "quarantined" if stage in self.replay else None

    def chosen(self, stages: Sequence[Stage]) -> frozenset[str]:
        """Return the names of the stages to bring up to date; raises UsageError for an unknown name."""
        if self.only and self.start:
            raise UsageError("--only and --from exclude each other: give one of them")
        names = [stage.name for stage in stages if stage.table is None]
        for name in (*self._only, *([self.start] if self.start else []), *self.force, *self.replay):
            if name not in names:
                close = difflib.get_close_matches(name, names, n=3)
                hint = f"did you mean {' or '.join(close)}?" if close else f"available: {', '.join(names)}"
                raise UsageError(f"unknown stage {name!r}; {hint}")
        chosen = frozenset(names)
        if self.only:
            chosen = frozenset(self._only) | _upstream([name for name, where in self._only.items() if where], stages)
        elif self.start:
            chosen = _downstream(self.start, stages)
        if outside := sorted({*self.force, *self.replay} - chosen):
            raise UsageError(f"stage {outside[0]!r} is to be rebuilt but is not among the stages to build")
        return chosen

    def needed(self, stages: Sequence[Stage]) -> list[Stage]:
        """Return the chosen stages and those that they read, in order."""
        chosen = self.chosen(stages)
        read = {upstream.name for stage in stages if stage.name in chosen for upstream in stage.upstream}
        return [stage for stage in stages if stage.name in chosen | read]


def _upstream(names: Sequence[str], stages: Sequence[Stage]) -> frozenset[str]:
    reached = set(names)
    for stage in reversed(stages):
        if stage.name in reached:
            reached.update(upstream.name for upstream in stage.upstream if upstream.table is None)
    return frozenset(reached)


def _downstream(start: str, stages: Sequence[Stage]) -> frozenset[str]:
    reached = {start}
    for stage in stages:  # each comes after those it reads
        if any(upstream.name in reached for upstream in stage.upstream):
            reached.add(stage.name)
    return frozenset(reached)
