"""Write a release as a folder that others can use, and record that it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import polars as pl

from normloom.core.errors import StoreError, UsageError
from normloom.exports.audited import audited
from normloom.exports.card.before import before
from normloom.exports.card.card import card
from normloom.exports.card.changes import changes
from normloom.exports.card.facts import Facts
from normloom.exports.croissant import croissant
from normloom.exports.folder import MARKER, exported_folder, require_replaceable
from normloom.exports.origins import about, rights
from normloom.exports.pairs import PreferenceForm, has_preferences, preferences
from normloom.exports.public import command, public_lock
from normloom.exports.tables import Form, Shown, Written, stored, write
from normloom.history.builds import BuildLock, accounts
from normloom.history.exports import ExportRecord, new_export_id, write_export
from normloom.history.releases import ReleaseRecord, record_release, version_named, versions
from normloom.report.material import Material, find_material
from normloom.settings.systems import system_named, system_names
from normloom.store.latest import released_key
from normloom.store.store import Store

Format = Literal["hf", "trl", "jsonl", "csv", "croissant"]
FORMATS: tuple[Format, ...] = ("hf", "trl", "jsonl", "csv", "croissant")
RELEASE = "default"  # the configuration of the released table
LOCK = "normloom.lock.yaml"
_FORMS: dict[Format, Form] = {"hf": "parquet", "trl": "parquet", "croissant": "parquet", "jsonl": "jsonl", "csv": "csv"}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was exported: folder, version, tables with their files, and what the licences of the sources forbid."""

    path: Path
    record: ExportRecord
    release: ReleaseRecord
    tables: Sequence[Written]
    licences: Sequence[str | None]
    warnings: Sequence[str]


def export(  # noqa: PLR0913  # the options of the command
    store: Store,
    system: str,
    path: Path,
    *,
    format: Format = "hf",  # noqa: A002  # as the option is called
    pairs: PreferenceForm = "conversational",
    tables: Sequence[str] = (),
    version: str | None = None,
    overwrite: bool = False,
    repository: str | None = None,
) -> Exported:
    """Write a version of a system's release, the newest by default, to a folder.

    `tables` names released tables, those that no other stage reads; by default all of them, of the formats trl, jsonl
    and csv only the release itself. `repository` is where the folder will be on a hub, for the card. Raises UsageError
    if there is nothing to export or the folder may not be written, ReleaseError if its audit misses a bound.
    """
    path = path.absolute()
    require_replaceable(path, overwrite=overwrite)
    store.require(system)
    with store.building(system):
        release = _release(store, system, version)
        material = find_material(store, system, release.build, title=_title(system))
        chosen = _chosen(store, material, release, format, tables)
        audit = audited(store, material.manifests[release.stage])
        if format == "trl":
            chosen = [preferences(store, shown, pairs) for shown in chosen]
        record = _record(release, material.lock, path, f"trl, {pairs}" if format == "trl" else format, chosen)
        with exported_folder(path, overwrite=overwrite) as folder:
            written = [one for one in (write(shown, folder, _FORMS[format]) for shown in chosen) if one.files]
            if not written:
                raise UsageError(f"{system} {release.version} has no rows to export")
            facts = _facts(store, material, release, written, repository, audit)
            _describe(folder, facts, record, format)
            write_export(store, record)
    return Exported(
        path=path,
        record=record,
        release=release,
        tables=written,
        licences=facts.rights.licences,
        warnings=facts.rights.warnings,
    )


def _title(system: str) -> str | None:
    return system_named(system).title if system in system_names() else None


def _release(store: Store, system: str, version: str | None) -> ReleaseRecord:
    """Return the version to export; the newest release is recorded if an earlier Normloom made it."""
    if version is not None:
        return version_named(store, system, version)
    shown = released_key(store, system)
    if shown is None:
        raise UsageError(f"{system} has no release in {store.root}: run normloom build {system} first")
    stage, key = shown
    for record in reversed(versions(store, system)):
        if (record.stage, record.key) == shown:
            return record
    for account in reversed(accounts(store, system)):
        held = account.lock.stages.get(stage)
        if held is not None and held.key == key:
            manifest = store.published(system, stage, key)
            if manifest is None:
                break
            return record_release(store, manifest, build=account.lock.build, source=account.lock.source)
    raise StoreError(
        f"the release of {system} in {store.root} has no lock of its build, or files of it are missing: build it again"
    )


def _chosen(
    store: Store, material: Material, release: ReleaseRecord, form: Format, tables: Sequence[str]
) -> list[Shown]:
    """Return the tables to export, the release first."""
    if release.stage not in material.manifests:
        raise UsageError(
            f"the table of {release.system} {release.version} is no longer in {store.root}: export another version "
            f"(normloom releases {release.system}), or build it again"
        )
    refs = [ref for one in material.manifests.values() for ref in (*one.inputs, *one.sides)]
    read = {ref.stage for ref in refs if ref.system == release.system}
    ends = [release.stage, *(stage for stage in material.manifests if stage not in read and stage != release.stage)]
    if unknown := [name for name in tables if name not in ends]:
        raise UsageError(f"unknown released table {unknown[0]!r} of {release.system}; available: {', '.join(ends)}")
    if tables:
        ends = [name for name in ends if name in tables]
    elif form not in {"hf", "croissant"}:
        ends = ends[:1]
    found = [
        stored(store, material.manifests[name].ref, RELEASE if name == release.stage else name)
        for name in ends
        if material.columns[name]
    ]
    if form == "trl" and not tables and not has_preferences(list(found[0].schema)):
        preferences(store, found[0], "conversational")  # which says what is missing
    return found


def _record(release: ReleaseRecord, lock: BuildLock, path: Path, form: str, chosen: Sequence[Shown]) -> ExportRecord:
    return ExportRecord(
        export=new_export_id(),
        system=release.system,
        version=release.version,
        build=release.build,
        created=datetime.now(UTC).replace(microsecond=0),
        path=str(path),
        format=form,
        tables=[shown.ref for shown in chosen],
        reads=list(lock.reads.values()),
    )


def _facts(
    store: Store,
    material: Material,
    release: ReleaseRecord,
    written: Sequence[Written],
    repository: str | None,
    audit: pl.DataFrame | None,
) -> Facts:
    return Facts(
        material=material,
        about=about(release.system),
        rights=rights(store, release),
        release=release,
        tables=written,
        changes=changes(store, release),
        before=before(material),
        command=command(material.lock),
        repository=repository,
        audit=audit,
    )


def _describe(folder: Path, facts: Facts, record: ExportRecord, form: Format) -> None:
    """Write all that is not data; the same release gives the same files, whenever it is exported."""
    if form != "croissant":
        (folder / "README.md").write_text(card(facts), encoding="utf-8")
    if form in {"hf", "croissant"}:
        text = json.dumps(croissant(facts), indent=2, ensure_ascii=False)
        (folder / "croissant.json").write_text(f"{text}\n", encoding="utf-8")
    (folder / LOCK).write_text(public_lock(facts.material.lock), encoding="utf-8")
    marker = record.model_dump_json(indent=1, exclude={"export", "created", "path", "pushed"})
    (folder / MARKER).write_text(f"{marker}\n", encoding="utf-8")
