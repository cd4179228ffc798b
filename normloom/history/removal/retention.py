"""Records of old builds: locks, OpenLineage events, and what builds left that did not finish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from normloom.history.builds import locks, started
from normloom.history.freshness import releases
from normloom.history.unfinished import dead
from normloom.lineage.openlineage import record_of
from normloom.store.files import writing
from normloom.store.layout import BUILDS
from normloom.store.store import Store

KEEP = 10


@dataclass(frozen=True, kw_only=True)
class Expired:
    """The records of one build that may go."""

    system: str
    build: str
    paths: Sequence[Path]
    bytes: int


def expired(store: Store, *, before: datetime, keep: int = KEEP) -> list[Expired]:
    """Return the records of builds that began before a moment, oldest first.

    The newest `keep` finished builds of each system stay, and so do the build that made the newest release and the last
    that confirmed it. Builds at work are left alone. Raises StoreError if the lock of a build is damaged.
    """
    return [one for system in store.systems() for one in _of(store, system, before, keep)]


def remove(found: Sequence[Expired]) -> None:
    """Remove the records; events go before the lock or record that tells of the build."""
    for one in found:
        for path in one.paths:
            with writing(path):
                path.unlink(missing_ok=True)


def _of(store: Store, system: str, before: datetime, keep: int) -> Iterator[Expired]:
    folder = store.root / system / BUILDS
    finished = [lock.build for lock in locks(store, system)]
    needed = {*finished[-keep:], *_of_the_release(store, system)}
    ended = [(build, ".yaml") for build in finished] + [(build.build, ".json") for build in dead(store, system)]
    for build, suffix in sorted(ended):
        began = started(build)
        if build in needed or began is None or began >= before:
            continue
        paths = [path for path in (record_of(store, system, build), folder / f"{build}{suffix}") if path.exists()]
        yield Expired(system=system, build=build, paths=paths, bytes=sum(path.stat().st_size for path in paths))


def _of_the_release(store: Store, system: str) -> Iterator[str]:
    for release in releases(store):
        if release.system == system:
            yield release.build
            if table := store.published(system, release.stage, release.key):
                yield table.build
