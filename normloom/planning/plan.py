"""What a build would do, found without starting anything: what is published, what is to be made and why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil
from typing import Any, Literal

from normloom.core.errors import UsageError
from normloom.core.models.needs import ProcessSpec
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Output, Stage
from normloom.core.table import Manifest, PartRecord
from normloom.labelling.seen import with_answers
from normloom.models.media.senses import require_senses
from normloom.planning.causes import Version, changes, stored, without_reads
from normloom.planning.changes import Change
from normloom.planning.costs.estimate import history, load_seconds, model_loads, stage_seconds
from normloom.planning.keys import key_fields, stage_key
from normloom.planning.new_table import NewTable
from normloom.planning.reuse import kept_parts, kept_without
from normloom.steps.selection import Again, Selection
from normloom.store.forgotten import deny_list, forgettings
from normloom.store.store import Store
from normloom.workers.resources import Resources

State = Literal["reused", "taken", "again", "resumed", "changed", "waiting", "new"]


def find_published(system: str, stages: Sequence[Stage], store: Store) -> dict[str, Manifest]:
    """Return the manifests of the stages whose tables are published, by stage name.

    The key of a stage needs the content of the tables it reads, so nothing is known of a stage that
    depends on one that is still to be made.
    """
    found: dict[str, Manifest] = {}
    forgotten = deny_list(store).digest
    for stage in stages:
        if stage.table:
            found[stage.name] = store.manifest(stage.table)
        elif all(upstream.name in found for upstream in stage.upstream):
            inputs = [found[upstream.name].content for upstream in stage.inputs]
            sides = [found[upstream.name].content for upstream in stage.side_inputs]
            key = stage_key(
                key_fields(system, with_answers(stage, store), inputs=inputs, sides=sides, forgotten=forgotten)
            )
            manifest = store.resolved(system, stage.name, key)
            if manifest:
                found[stage.name] = manifest
    return found


def read_sources(
    stages: Sequence[Stage], *, system: str, store: Store, selection: Selection | None = None
) -> dict[str, Output]:
    """Read the chosen sources that no table holds yet; raises SourceError for one that cannot be used.

    Left out are those that write files, such as media: they are read once, by the build.
    """
    chosen = (selection or Selection()).chosen(stages)
    published = find_published(system, stages, store)
    return {
        stage.name: stage.function(stage.arguments, **with_answers(stage, store).values)
        for stage in stages
        if not stage.upstream and not stage.run and stage.name in chosen and stage.name not in published
    }


@dataclass(frozen=True, kw_only=True, repr=False)
class PlannedStage:
    """What a build would do with one stage.

    `state`: `reused` (published under its key), `taken` (read as published by the stages that are chosen),
    `again` (made once more on demand), `resumed` (some parts are there), `changed` (see `changes`, against the
    newest table), `waiting` (reads tables that are to be made, `waits_for`, and is reused if they turn out
    unchanged), `new` (has no table, or one that cannot be read, as `damage` says). `key` is None while a table that is
    read is to be made. `rows` counts what is read, a guess from earlier tables if `expected`. Of `parts`, `parts_done`
    need not be made: they are there, or an earlier build made them of the same rows (`done`, if that is certain).
    `forgets`: nothing but rows taken back has changed. `seconds` is None if no earlier table tells, and `rough` if that
    table had another model or other arguments.
    """

    stage: Stage
    state: State
    version: Version
    key: str | None
    table: Manifest | None = None
    newest: Manifest | None = None
    damage: str | None = None
    changes: tuple[Change, ...] = ()
    waits_for: tuple[str, ...] = ()
    rows: int | None = None
    rows_left: int | None = 0
    expected: bool = False
    parts: int | None = None
    parts_done: int = 0
    done: tuple[PartRecord, ...] = ()
    forgets: bool = False
    seconds: float | None = 0.0
    rough: bool = False

    @property
    def to_do(self) -> bool:
        """Whether the build makes this table, if only because what it reads may change."""
        return self.state not in ("reused", "taken")

    def __repr__(self) -> str:
        return f"<{self.stage.name}: {self.state}>"

    @property
    def waits_for_products(self) -> tuple[str, ...]:
        """The stages still to be made whose products it uses, as models or as files."""
        return tuple(product.name for product in self.stage.products if product.name in self.waits_for)

    @property
    def content(self) -> str | None:
        """The content of the table, None while it is to be made."""
        return None if self.to_do or self.table is None else self.table.content

    @property
    def rows_out(self) -> int | None:
        """How many rows the table has, or will have at the newest table's yield; None if nothing tells."""
        if self.table and not self.to_do:
            return self.table.count("rows")
        if self.stage.inputs and self.rows == 0:
            return 0
        if self.newest is None or self.rows is None:
            return None
        made = self.newest.count("rows")
        return round(made * self.rows / self.newest.rows_in) if self.newest.rows_in else made


@dataclass(frozen=True, kw_only=True, repr=False)
class Plan:
    """What a build would do: the stages in order, and the models that they load one after another.

    `loads` is None if only the cluster can tell how many models fit; `load_seconds` has, by name, the models
    whose loading an earlier build has timed.
    """

    system: str
    stages: tuple[PlannedStage, ...]
    loads: tuple[ModelSpec, ...] | None
    load_seconds: Mapping[str, float]

    def __repr__(self) -> str:
        made = ", ".join(f"{planned.stage.name} ({planned.state})" for planned in self.to_do)
        return f"<Plan of {self.system}: {len(self.to_do)} of {len(self.stages)} stages to do{': ' * bool(made)}{made}>"

    def __getitem__(self, stage: str) -> PlannedStage:
        return next(planned for planned in self.stages if planned.stage.name == stage)

    @property
    def to_do(self) -> list[PlannedStage]:
        """The stages whose tables are to be made."""
        return [planned for planned in self.stages if planned.to_do]

    @property
    def models(self) -> list[str]:
        """The names of the models needed, in the order of their first use."""
        return list(dict.fromkeys(spec.model for spec in _uses(self.stages) if not isinstance(spec, ProcessSpec)))

    @property
    def seconds(self) -> float:
        """The time that is known of: work at the stages, and each load of a model."""
        names = self.models if self.loads is None else [spec.model for spec in self.loads]
        loading = sum(self.load_seconds.get(name, 0.0) for name in names)
        return loading + sum(planned.seconds or 0.0 for planned in self.stages)

    @property
    def untimed(self) -> list[str]:
        """What `seconds` misses: stages and models that no earlier table tells of."""
        stages = [planned.stage.name for planned in self.stages if planned.seconds is None]
        return [*stages, *(name for name in self.models if name not in self.load_seconds)]


def plan(
    stages: Sequence[Stage], *, system: str, store: Store, resources: Resources, selection: Selection | None = None
) -> Plan:
    """Return what a build of the stages, which are in order, would do; raises what the build would."""
    selection = selection or Selection()
    planner = _Planner(system, store, resources)
    chosen = selection.chosen(stages)
    for stage in selection.needed(stages):
        planner.add(stage, selection, chosen=stage.name in chosen)
    require_senses(stages)  # the keys have brought what describes a model here
    planned = tuple(planner.planned.values())
    uses = _uses(planned)
    loads = model_loads(uses, resources)
    newest = store.newest(system)
    timed = {spec.model: load_seconds(spec, newest) for spec in uses if not isinstance(spec, ProcessSpec)}
    return Plan(
        system=system,
        stages=planned,
        loads=None if loads is None else tuple(loads),
        load_seconds={name: seconds for name, seconds in timed.items() if seconds is not None},
    )


def _uses(stages: Sequence[PlannedStage]) -> list[ModelSpec]:
    """Return the model or the processes of each stage that will need them; without rows none is loaded."""
    held = [one.stage.holds for one in stages if one.to_do and one.rows_left != 0]
    return [spec for spec in held if spec]


@dataclass(frozen=True)
class _Planner:
    """Takes the stages in order, so that what each of them reads has been planned before it."""

    system: str
    store: Store
    resources: Resources
    planned: dict[str, PlannedStage] = field(default_factory=dict)

    def add(self, stage: Stage, selection: Selection, *, chosen: bool) -> None:
        if not chosen:
            self.planned[stage.name] = self._taken(stage)
            return
        found = self._looked_up(stage)
        again = selection.again(stage.name, found.table or found.newest)
        if again == "quarantined" and not (found.table and found.table.count("quarantined")):
            again = None
        if found.table is None or again:
            found = self._to_do(found, again if found.table or selection.fresh else None)
        self.planned[stage.name] = found

    def _taken(self, stage: Stage) -> PlannedStage:
        newest = self.store.manifest(stage.table) if stage.table else self.store.current(self.system, stage.name)
        if newest is None:
            raise UsageError(f"stage {stage.name!r} has no table yet, but a chosen stage reads it: choose it too")
        version = stored(newest, self.store)
        return PlannedStage(stage=stage, state="taken", version=version, key=newest.key, table=newest, newest=newest)

    def _fields(self, stage: Stage) -> dict[str, Any]:
        return key_fields(
            self.system,
            with_answers(stage, self.store),
            inputs=[self.planned[upstream.name].content or "" for upstream in stage.inputs],
            sides=[self.planned[upstream.name].content or "" for upstream in stage.side_inputs],
            forgotten=deny_list(self.store).digest,
        )

    def _looked_up(self, stage: Stage) -> PlannedStage:
        """Return the stage with its key, as far as that is known, and the table that stands for it."""
        inputs = {upstream.name: self.planned[upstream.name].content for upstream in stage.inputs}
        sides = {upstream.name: self.planned[upstream.name].content for upstream in stage.side_inputs}
        waits_for = tuple(name for name, content in {**inputs, **sides}.items() if content is None)
        fields = self._fields(stage)
        key = None if waits_for else stage_key(fields)
        table = self.store.resolved(self.system, stage.name, key) if key else None
        version = Version(
            stage=stage.name,
            fields=json.loads(json.dumps(without_reads(fields))),
            inputs=inputs,
            sides=sides,
            remake=table.remake if table else 0,
            upstream=lambda name: self.planned[name].version,
        )
        return PlannedStage(
            stage=stage,
            state="reused",
            version=version,
            key=key,
            table=table,
            newest=table or self.store.current(self.system, stage.name),
            damage=None if table else self.store.why_unreadable(self.system, stage.name),
            waits_for=waits_for,
        )

    def _to_do(self, found: PlannedStage, again: Again | None) -> PlannedStage:
        """Return the stage with why it is to be made, the rows and parts that are left and the time they take."""
        stage, newest = found.stage, found.newest
        read = [self.planned[upstream.name] for upstream in stage.inputs]
        counts = [upstream.rows_out for upstream in read if upstream.rows_out is not None]
        rows = sum(counts) if len(counts) == len(read) else None
        differing = tuple(changes(stored(newest, self.store), found.version)) if newest else ()
        waits = [self.planned[name] for name in found.waits_for]
        forgets = all(one.forgets for one in waits) if waits else [one.field for one in differing] == ["forgotten"]
        forgets = forgets and not (waits and differing) and newest is not None and not again
        done, parts = self._done(found, again), None
        resumes = bool(done)
        if stage.inputs and not again and not found.waits_for and not stage.products:
            parts, done = kept_parts(self._table(found), {part.index: part for part in done})
        guess = None
        if forgets and waits and newest:
            guess = kept_without(stage, newest, self._taken_back, self.store)
        kept = guess.rows if guess else sum(part.stop - part.start for part in done)
        left = None if rows is None else max(rows - kept, 0)
        state: State = "waiting" if found.waits_for and not differing else "changed"
        if again or resumes:
            state = "again" if again else "resumed"
        elif newest is None:
            state = "new"
        if parts is None and rows is not None:
            parts = guess.parts if guess else max(ceil(rows / (stage.part_rows or max(rows, 1))), 1)
        seconds, rough = self._time(found, left)
        return replace(
            found,
            state=state,
            changes=differing,
            rows=rows,
            rows_left=left,
            expected=any(upstream.to_do for upstream in read),
            parts=parts,
            parts_done=guess.done if guess else len(done),
            done=tuple(done),
            forgets=forgets,
            seconds=seconds,
            rough=rough,
        )

    def _table(self, found: PlannedStage) -> NewTable:
        """Return the table that a build would make of tables that are there."""
        stage = found.stage
        inputs, sides = (
            tuple(table.ref for one in group if (table := self.planned[one.name].table))
            for group in (stage.inputs, stage.side_inputs)
        )
        return NewTable(self.system, self.store, "plan", stage, self._fields(stage), inputs, sides)

    @cached_property
    def _taken_back(self) -> frozenset[str]:
        """The ids of all rows derived from rows taken back."""
        return frozenset(row_id for one in forgettings(self.store) for row_id in one.reached)

    def _done(self, found: PlannedStage, again: Again | None) -> list[PartRecord]:
        """Return the parts that need not be made."""
        if again == "quarantined" and found.table:
            return [part for part in found.table.parts if not part.files["quarantined"].rows]
        if again or found.key is None:
            return []
        parts = self.store.parts(self.store.directory(self.system, found.stage.name, found.key)).values()
        return [part for part in parts if part.settled]

    def _time(self, found: PlannedStage, left: int | None) -> tuple[float | None, bool]:
        """Return the seconds that the stage will take and whether the table they go by had other settings."""
        if found.stage.inputs and left == 0:
            return 0.0, False
        basis = found.newest
        model = found.version.fields["model"]
        if basis and basis.key_fields["model"] != model:
            earlier = history(self.store, self.system, found.stage.name)
            basis = next((table for table in reversed(earlier) if table.key_fields["model"] == model), basis)
        if basis is None or left is None:
            return None, False
        rough = any(basis.key_fields[name] != found.version.fields[name] for name in ("model", "arguments"))
        return stage_seconds(found.stage, left, basis, self.resources), rough
