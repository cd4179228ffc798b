"""Why a stage's table would differ from the one before: fields of its own key, or those of stages upstream."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from normloom.core.table import Manifest
from normloom.planning.changes import Change, compare_keys
from normloom.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Version:
    """A stage's table, made or to be made, as its key sees it.

    `fields` are those of the key without what is read; `inputs` and `sides` give the content of each table
    that is read by its stage, None while it is to be made. `upstream` finds the version of such a table, None
    if it is no longer in the store.
    """

    stage: str
    fields: Mapping[str, Any]
    inputs: Mapping[str, str | None]
    sides: Mapping[str, str | None]
    remake: int
    upstream: Callable[[str], Version | None]

    @property
    def reads(self) -> dict[str, str | None]:
        """The content of every table that is read."""
        return {**self.inputs, **self.sides}


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A stage whose own key changed, and with it everything downstream.

    `path` leads from the stage in question to this one. `changes` is None if the table that was read
    before is no longer in the store.
    """

    stage: str
    path: tuple[str, ...]
    changes: tuple[Change, ...] | None


def stored(manifest: Manifest, store: Store) -> Version:
    """Return the version that a published table is."""
    refs = {ref.known_to(manifest.system): ref for ref in (*manifest.inputs, *manifest.sides)}

    def upstream(stage: str) -> Version | None:
        ref = refs[stage]
        found = store.published(ref.system, ref.stage, ref.key)
        return stored(found, store) if found else None

    return Version(
        stage=manifest.stage,
        fields=without_reads(manifest.key_fields),
        inputs={ref.known_to(manifest.system): ref.content for ref in manifest.inputs},
        sides={ref.known_to(manifest.system): ref.content for ref in manifest.sides},
        remake=manifest.remake,
        upstream=upstream,
    )


def without_reads(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a key that are a stage's own."""
    return {name: value for name, value in fields.items() if name not in {"inputs", "sides"}}


def own_changes(old: Version, new: Version) -> list[Change]:
    """Return the fields of the stage itself that differ."""
    found = compare_keys(old.fields, new.fields)
    if not found and old.remake != new.remake and old.reads == new.reads:
        return [Change(field="remake", old=old.remake, new=new.remake)]
    return found


def changes(old: Version, new: Version) -> list[Change]:
    """Return all fields that differ; a table still to be made may turn out unchanged and is not counted."""
    return [
        *own_changes(old, new),
        *_read_changes("inputs", old.inputs, new.inputs),
        *_read_changes("sides", old.sides, new.sides),
    ]


def causes(old: Version, new: Version) -> list[Cause]:
    """Return the stages upstream that changed of themselves, nearest first, each with the shortest path to it."""
    found: list[Cause] = []
    pending: deque[tuple[Version, Version, tuple[str, ...]]] = deque([(old, new, (new.stage,))])
    seen = {new.stage}
    while pending:
        before, now, path = pending.popleft()
        for stage, content in now.reads.items():
            if stage in seen or stage not in before.reads or before.reads[stage] == content:
                continue
            seen.add(stage)
            read_before, read_now = before.upstream(stage), now.upstream(stage)
            along = (*path, stage)
            if read_before is None or read_now is None:
                found.append(Cause(stage=stage, path=along, changes=None))
                continue
            if own := own_changes(read_before, read_now):
                found.append(Cause(stage=stage, path=along, changes=tuple(own)))
            pending.append((read_before, read_now, along))
    return found


def _read_changes(field: str, old: Mapping[str, str | None], new: Mapping[str, str | None]) -> list[Change]:
    found = []
    for position, (stage, content) in enumerate(new.items()):
        path = f"{field}[{position}]"
        if stage not in old:
            found.append(Change(field=path, kind="added", new=content, upstream=stage))
        elif content is not None and old[stage] != content:
            found.append(Change(field=path, old=old[stage], new=content, upstream=stage))
    for position, (stage, content) in enumerate(old.items()):
        if stage not in new:
            found.append(Change(field=f"{field}[{position}]", kind="removed", old=content, upstream=stage))
    if not found and list(old) != list(new):
        return [Change(field=field, old=list(old), new=list(new))]
    return found
