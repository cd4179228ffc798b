"""Full rebuilds: every table is rebuilt, whether or not anything changed."""

from __future__ import annotations

from datetime import UTC, datetime

from normloom.history.builds import locks
from normloom.history.unfinished import dead
from normloom.store.store import Store


def fresh_since(store: Store, system: str) -> str:
    """Return since when tables count as fresh: now, or the start of a fresh build that has not finished yet.

    So the same command resumes a fresh build that was killed; once one has finished the next starts over.
    """
    finished = locks(store, system, newest=1)
    last = finished[-1].build if finished else ""
    begun = [
        build.selection["fresh"] for build in dead(store, system) if build.build > last and "fresh" in build.selection
    ]
    return str(begun[-1]) if begun else datetime.now(UTC).isoformat(timespec="microseconds")
