"""The table that a stage is about to make, and the parts that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from normloom.core.models.model_roles import RolesSpec
from normloom.core.models.product_model import ProductSpec
from normloom.core.models.routed_model import RoutedSpec
from normloom.core.stage import Stage
from normloom.core.table import Manifest, PartRecord, TableRef
from normloom.models.adapters import on_base
from normloom.planning.incremental import bounds_after, bounds_around, regular
from normloom.planning.keys import stage_key
from normloom.store.forgotten import deny_list
from normloom.store.parts import Writer
from normloom.store.store import Store
from normloom.workers.parts.having import having
from normloom.workers.parts.job import PartJob, RunJob, TableFiles


@dataclass(frozen=True)
class NewTable:
    """The table that a stage is about to make: its key, where it lies, who writes it."""

    system: str
    store: Store
    build: str
    stage: Stage
    fields: dict[str, Any]
    inputs: tuple[TableRef, ...]
    sides: tuple[TableRef, ...]
    remake: int = 0

    @cached_property
    def key(self) -> str:
        """The key that the table will have."""
        return stage_key(self.fields, remake=self.remake)

    @cached_property
    def directory(self) -> Path:
        """Where it is written."""
        return self.store.directory(self.system, self.stage.name, self.key)

    @cached_property
    def writer(self) -> Writer:
        """Who writes it."""
        return Writer.of(self.build)

    @cached_property
    def files(self) -> TableFiles:
        """The files of the rows that it reads."""
        return tuple(file for ref in self.inputs for file in self.store.files(ref))

    @cached_property
    def checksums(self) -> dict[Path, str]:
        """The checksums of the files that it reads, those of side tables included."""
        refs = [*self.inputs, *self.sides[: len(self.stage.sides)]]
        return {path: checksum for ref in refs for path, checksum in self.store.checksums(ref)}

    def jobs(self, base: Manifest | None, earlier: Manifest | None, done: Mapping[int, PartRecord]) -> list[PartJob]:
        """Return its parts, cut as `base` is or around those that are `done`, else as `earlier` is."""
        # not before: it imports numpy, which a build with nothing to do does not need
        from normloom.workers.parts.places import with_places

        stage = self.stage
        files = self.files
        rows = sum(count for _, count in files)
        bounds = regular(rows, stage.part_rows)
        if base:
            bounds = [(part.start, part.stop) for part in base.parts]
        elif done and stage.part_rows and (around := bounds_around(done, rows, stage.part_rows)):
            bounds = around
        elif earlier and stage.part_rows:
            bounds = bounds_after(self.store, earlier, files, self.checksums, stage.part_rows)
        gpus = stage.needs.gpus if stage.needs else 0.0
        kind = partial(RunJob, product=stage.files, gpus=gpus) if stage.run else PartJob
        whole = kind(
            system=self.system,
            stage=stage.name,
            function=stage.function,
            arguments=stage.arguments,
            values={name: self.placed(one) for name, one in stage.values.items()},
            fan_out=stage.fan_out,
            contract=stage.contract,
            directory=self.directory,
            writer=self.writer.token,
            index=0,
            start=0,
            stop=0,
            inputs=files if stage.inputs else None,
            sides=tuple(tuple(self.store.files(ref)) for ref in self.sides[: len(stage.sides)]),
            sides_on=stage.sides_on,
            served=on_base(self.placed(stage.model)),
            looks_up=stage.looks_up,
            reads=stage.reads,
            side_reads=stage.side_handed,
            blocks=stage.blocks,
            reusable=stage.part_rows is not None and bool(stage.inputs),
            forgotten=None if stage.inputs else deny_list(self.store),
        )
        jobs = [having(whole, index=index, start=start, stop=stop) for index, (start, stop) in enumerate(bounds)]
        return with_places(jobs, self.checksums, earlier.parts if earlier else ())

    def placed(self, value: Any) -> Any:
        """Return a value of a stage, with its files found if it is a model out of a product."""
        if isinstance(value, RolesSpec):
            return RolesSpec.of({role: self.placed(one) for role, one in value.roles.items()})
        if isinstance(value, RoutedSpec):
            return value.each(self.placed)
        if not isinstance(value, ProductSpec):
            return value
        position = len(self.stage.sides) + [stage.name for stage in self.stage.products].index(value.product)
        return value.placed(str(self.store.folder(self.sides[position])))
