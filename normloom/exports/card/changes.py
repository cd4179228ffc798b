"""The change log of a release: how each version differs from the one before."""

from __future__ import annotations

from dataclasses import dataclass

from normloom.core.errors import NormloomError
from normloom.core.rows.text import counted
from normloom.exports.card.markdown import code, text
from normloom.history.builds import find_build
from normloom.history.releases import ReleaseRecord, versions
from normloom.lineage.diff import diff
from normloom.lineage.table_diff import TableDiff
from normloom.planning.changes import code_counted
from normloom.store.store import Store

SHOWN = 10  # versions, the newest


@dataclass(frozen=True, kw_only=True)
class ReleaseChange:
    """A version and the one before it; `table` compares their rows if both tables are in the store.

    `fields` are what differs in the keys of the stages, each once: settings, inputs, models, code.
    """

    version: ReleaseRecord
    before: ReleaseRecord | None = None
    fields: tuple[str, ...] = ()
    table: TableDiff | None = None


def changes(store: Store, release: ReleaseRecord) -> list[ReleaseChange]:
    """Return the versions up to a release, the newest first, each compared with the one before."""
    known = [record for record in versions(store, release.system) if record.numbers <= release.numbers]
    pairs = zip([None, *known[:-1]], known, strict=True)
    return [_change(store, before, version) for before, version in reversed(list(pairs))][:SHOWN]


def lines(found: list[ReleaseChange]) -> list[str]:
    """Return the change log in Markdown."""
    return [line for change in found for line in _lines(change)]


def _change(store: Store, before: ReleaseRecord | None, version: ReleaseRecord) -> ReleaseChange:
    if before is None:
        return ReleaseChange(version=version)
    try:
        old, new = (find_build(store, record.build, system=record.system) for record in (before, version))
        stages = diff(old, new, store, examples=0, tables={version.stage})
    except NormloomError:  # what is told of the two versions holds without their builds
        return ReleaseChange(version=version, before=before)
    fields = dict.fromkeys(field for stage in stages for field in stage.fields if not _follows(field))
    table = next((stage.table for stage in stages if stage.stage == version.stage), None)
    return ReleaseChange(version=version, before=before, fields=tuple(fields), table=table)


def _follows(field: str) -> bool:
    """Return whether a field differs only because a table upstream does."""
    return field.startswith(("inputs", "sides"))


def _lines(change: ReleaseChange) -> list[str]:
    version, before = change.version, change.before
    head = f"- **{version.version}** ({version.created:%Y-%m-%d}, {counted(version.rows)})"
    if before is None:
        return [f"{head}: first release."]
    told = []
    if change.table:
        table = change.table
        told.append(f"{counted(table.added)} added, {table.removed:,} removed, {table.changed:,} changed")
    elif version.stage != before.stage:
        told.append(f"the table {text(version.stage)} in place of {text(before.stage)}")
    elif version.content != before.content:
        told.append(f"{counted(before.rows)} before; the two tables are no longer both in the store")
    told += [f"column {text(name)} added" for name in version.columns if name not in before.columns]
    told += [f"column {text(name)} removed" for name in before.columns if name not in version.columns]
    if version.source.licence != before.source.licence:
        told.append(f"licence of the source {text(before.source.licence)} → {text(version.source.licence)}")
    if version.source.citation != before.source.citation:
        told.append("citation of the source changed")
    named, of_code = code_counted(change.fields)
    if because := [*map(code, named), *of_code]:
        told.append(f"because of {', '.join(because)}")
    return [f"{head}: {'; '.join(told) or 'only the terms differ'}."]
