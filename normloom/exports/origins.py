"""Where the rows of a build come from: the terms of its own source, and of the builds that it started from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from normloom.core.errors import UsageError
from normloom.core.rows.text import counted
from normloom.core.table import TableRef
from normloom.exports.card.before import lock_of
from normloom.exports.licences import restrictions
from normloom.history.builds import BuildLock, find_build
from normloom.history.public import public_name
from normloom.history.releases import ReleaseRecord
from normloom.history.terms import SourceTerms
from normloom.settings.faces.about import About
from normloom.settings.systems import system_named, system_names
from normloom.store.store import Store

_LICENCE_COLUMNS = {"licence", "license"}  # in any case, among those that a user's source brings


@dataclass(frozen=True)
class Origin:
    """One source of a release: the system that read it, its terms, and what is known of built-in data."""

    system: str
    terms: SourceTerms
    statement: str = ""

    @property
    def name(self) -> str:
        """What the source is called in a card; a path on this machine is only its last part."""
        if self.terms.name is None:
            return f"the built-in data of {self.system}" if self.statement else "not recorded"
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


@dataclass(frozen=True, kw_only=True)
class Rights:
    """What may be done with a release: its sources, and how many rows have which licence if a column says so."""

    origins: Sequence[Origin]
    rows: Mapping[str | None, int]

    @property
    def licences(self) -> list[str | None]:
        """The licences of the sources, each once; of a source that names none, those of its rows."""
        of_rows = list(self.rows) or [None]
        named = [[one.terms.licence] if one.terms.licence else of_rows for one in self.origins]
        return list(dict.fromkeys(licence for group in named for licence in group))

    @property
    def warnings(self) -> list[str]:
        """What the licences do not allow, as sentences."""
        of_sources = {one.terms.licence for one in self.origins if one.terms.licence or not self.rows}
        found = [text for licence in of_sources for text in restrictions(licence)]
        told = [f"{counted(self.rows[licence])}: {text}" for licence in self.rows for text in restrictions(licence)]
        return list(dict.fromkeys([*found, *told]))


def rights(store: Store, release: ReleaseRecord) -> Rights:
    """Return the sources of a version, by the terms under which it was released, and the licences of its rows."""
    return Rights(origins=_origins_of_release(store, release), rows=_row_licences(store, release.ref))


def _row_licences(store: Store, ref: TableRef) -> dict[str | None, int]:
    """Count the rows of each licence, the most frequent first; nothing if no column has licences."""
    if store.published(ref.system, ref.stage, ref.key) is None:
        return {}
    rows = store.scan(ref)
    named = [
        name for name, kind in rows.collect_schema().items() if kind == pl.String and name.lower() in _LICENCE_COLUMNS
    ]
    if not named:
        return {}
    counted = rows.group_by(named[0]).len().sort("len", named[0], descending=[True, False]).collect()
    return dict(counted.iter_rows())


def _origins_of_release(store: Store, release: ReleaseRecord) -> list[Origin]:
    try:
        lock = find_build(store, release.build, system=release.system)
    except UsageError:  # its lock was pruned
        lock = BuildLock(system=release.system, build=release.build, stages={})
    return origins(store, lock.model_copy(update={"source": release.source}))


def _of_table(store: Store, ref: TableRef) -> list[Origin]:
    """Return the sources of a table: those of the newest build that has it."""
    lock = lock_of(store, ref)
    return origins(store, lock) if lock else [Origin(ref.system, SourceTerms())]
