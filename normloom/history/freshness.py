"""Which releases of a store are fresh: confirmed by a build not longer ago than their settings allow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from normloom.history.builds import BuildLock, locks
from normloom.store.latest import released_key
from normloom.store.stale import stale_stages
from normloom.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Release:
    """The newest release of a system.

    `build` is the last that made it or found that nothing had changed, and `confirmed` when that began: what it read
    was up to date then. `fresh_hours` is what that build's settings allow (None: any time). `behind` says which table
    it depends on has been rebuilt since.
    """

    system: str
    stage: str
    key: str
    rows: int
    build: str
    confirmed: datetime
    fresh_hours: float | None = None
    behind: str | None = None

    @property
    def until(self) -> datetime | None:
        """Until when it is fresh, None if for ever."""
        return None if self.fresh_hours is None else self.confirmed + timedelta(hours=self.fresh_hours)

    def stale(self, now: datetime) -> str | None:
        """Return why it is stale, None if it is fresh."""
        if self.until is None or now <= self.until:
            return None
        age = (now - self.confirmed).total_seconds() / 3600
        return f"last confirmed {age:,.1f} hours ago by build {self.build}, release.fresh_hours is {self.fresh_hours:g}"


def releases(store: Store) -> list[Release]:
    """Return the newest release of each system that has one."""
    found = (_release(store, system) for system in store.systems())
    return [release for release in found if release]


def _release(store: Store, system: str) -> Release | None:
    shown = released_key(store, system)
    if shown is None:
        return None
    stage, key = shown
    confirming = [lock for lock in locks(store, system) if _confirms(lock, stage, key)]
    if not confirming:
        return None
    last = confirming[-1]
    return Release(
        system=system,
        stage=stage,
        key=key,
        rows=last.stages[stage].rows,
        build=last.build,
        confirmed=last.started or datetime.fromtimestamp(0, UTC),
        fresh_hours=last.fresh_hours,
        behind=stale_stages(store, system).get(stage),
    )


def _confirms(lock: BuildLock, stage: str, key: str) -> bool:
    """Return whether a build looked at everything a release depends on; one of chosen stages did not."""
    held = lock.stages.get(stage)
    return held is not None and held.key == key and not held.stale and not {"only", "start"} & set(lock.selection)
