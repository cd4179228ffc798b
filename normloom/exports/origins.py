"""Where the rows of a build come from: the terms of its own source, and of the builds that it started from."""

from __future__ import annotations

from dataclasses import dataclass

from normloom.core.errors import UsageError
from normloom.core.table import TableRef
from normloom.exports.licences import restrictions
from normloom.exports.public import public_name
from normloom.history.builds import BuildLock, find_build, locks
from normloom.history.releases import ReleaseRecord
from normloom.history.terms import SourceTerms
from normloom.settings.about import About
from normloom.settings.systems import system_named, system_names
from normloom.store.store import Store


@dataclass(frozen=True)
class Origin:
    """One source of a release: the system that read it, its terms, and what is known of built-in data."""

    system: str
    terms: SourceTerms
    told: str = ""

    @property
    def name(self) -> str:
        """What the source is called in a card; a path on this machine is only its last part."""
        if self.terms.name is None:
            return f"the built-in data of {self.system}" if self.told else "not recorded"
        return public_name(self.terms.name)


def about(system: str) -> About:
    """Return what cards say of a system; nothing of a flow that is no installed system."""
    return (system_named(system).about or About()) if system in system_names() else About()


def origins(store: Store, lock: BuildLock) -> list[Origin]:
    """Return the sources of a build's rows, each once; those of other systems by the builds that made their tables."""
    own = lock.source
    if own.name is None and lock.reads:
        found = [origin for ref in lock.reads.values() for origin in _of_table(store, ref)]
        return list(dict.fromkeys(found))
    if own.name is not None:
        return [Origin(lock.system, own)]
    words = about(lock.system)
    if words.builtin is None:
        return [Origin(lock.system, own)]
    given = own.model_dump(exclude_defaults=True)
    return [Origin(lock.system, words.builtin.model_copy(update=given), words.origin)]


def origins_of_release(store: Store, release: ReleaseRecord) -> list[Origin]:
    """Return the sources of a version, by the terms under which it was released."""
    try:
        lock = find_build(store, release.build, system=release.system)
    except UsageError:  # its lock was pruned
        lock = BuildLock(system=release.system, build=release.build, stages={})
    return origins(store, lock.model_copy(update={"source": release.source}))


def licences(found: list[Origin]) -> list[str | None]:
    """Return the licences of the sources, each once."""
    return list(dict.fromkeys(origin.terms.licence for origin in found))


def warnings(found: list[Origin]) -> list[str]:
    """Return what the licences of the sources do not allow, as sentences."""
    return list(dict.fromkeys(text for licence in licences(found) for text in restrictions(licence)))


def _of_table(store: Store, ref: TableRef) -> list[Origin]:
    """Return the sources of a table: those of the newest build that has it."""
    for lock in reversed(locks(store, ref.system)):
        stage = lock.stages.get(ref.stage)
        if stage is not None and stage.key == ref.key:
            return origins(store, lock)
    return [Origin(ref.system, SourceTerms())]
