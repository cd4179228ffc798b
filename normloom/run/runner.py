"""The stage runner: from a stage and its input tables to a published table.

Reuse what is published under the stage's key; otherwise make the parts that are missing, trace what
fails to its row, account for every row, check the whole table and publish it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from normloom.core.errors import PartlyMadeError, StageError
from normloom.core.progress import Progress
from normloom.core.stage import QUARANTINE_BUDGET, Stage
from normloom.core.table import KINDS, Kind, Manifest, PartRecord, TableRef, Work, total
from normloom.history.losses import loss, losses, sentence, upstream
from normloom.labelling.seen import with_answers
from normloom.planning.costs.spending import Spending
from normloom.planning.incremental import earlier_table, taken_over
from normloom.planning.keys import key_fields, stage_key
from normloom.planning.new_table import NewTable
from normloom.run.budget import Budget
from normloom.run.checked import checked_before, without_failing
from normloom.run.checks.table_checks import require, run_checks
from normloom.run.parts import PartMaker
from normloom.run.release import ReleaseSize
from normloom.steps.selection import Again
from normloom.store.files import remove_tree
from normloom.store.forgotten import deny_list
from normloom.store.parts import adopt_parts, content_hash, forget_parts, scan_parts
from normloom.store.store import Store
from normloom.workers.crew import Crew, InlineCrew, Loading, PartProgress
from normloom.workers.parts.job import PartFailure, PartJob
from normloom.workers.parts.reads import forget_tables, with_spans
from normloom.workers.pool import Pool
from normloom.workers.stage_run import noting

FAILED = {"warn": "warns", "quarantine": "puts rows into quarantine", "stop": "failed"}  # by a check's `on_fail`

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Begun:
    """A table that a stage set out to make: where its parts are, and how many rows it reads."""

    directory: Path
    rows_in: int


@dataclass(frozen=True)
class StageRunner:
    """Runs the stages of one build.

    A stage fails when more than the share `quarantine_budget` of its attempts is in quarantine; the budget
    gates a table and does not change it, so it is no part of the key. Parts of a table that was refused are kept,
    but for those with rows in quarantine for a passing reason (an outage): the next build makes these again.
    `release` is the least size of the table of the stage `released`. `begun` has the tables that this build set out to
    make, by stage.
    """

    system: str
    store: Store
    pool: Pool
    build: str
    progress: Progress
    quarantine_budget: float = QUARANTINE_BUDGET
    released: str | None = None
    release: ReleaseSize = field(default_factory=ReleaseSize)
    spending: Spending = field(default_factory=Spending)
    begun: dict[str, Begun] = field(default_factory=dict)

    def run(
        self,
        stage: Stage,
        inputs: Sequence[TableRef],
        sides: Sequence[TableRef],
        *,
        again: Again | None = None,
        fresh: str | None = None,
        where: str | None = None,
    ) -> tuple[Manifest, bool]:
        """Return the stage's published table and whether it was there already.

        With `again` a table that is there is made once more, all of it or its parts with quarantined rows, and
        the remake stands for the stage's key from then on. Of a table that was refused the same parts are made again.
        So it is with a table made before `fresh` (ISO 8601), all of it. With `where`, a condition on the rows that the
        stage reads, only parts with such rows are made; raises PartlyMadeError if others are left.
        """
        self.pool.require_open()
        stage = with_answers(stage, self.store)
        fields = key_fields(
            self.system,
            stage,
            inputs=[ref.content for ref in inputs],
            sides=[ref.content for ref in sides],
            forgotten=deny_list(self.store).digest,
        )
        key = stage_key(fields)
        existing = self.store.resolved(self.system, stage.name, key)
        if existing and fresh and existing.made_before(fresh):
            again = "all"
        if again and existing and (again == "all" or existing.count("quarantined")):
            job = self._table(stage, fields, inputs, sides, remake=existing.remake + 1)
            base = existing if again == "quarantined" else None
            return self._locked(job, base=base, replaces=key, again=again)
        if existing:
            return self._reused(stage, existing)
        return self._locked(self._table(stage, fields, inputs, sides), again=again, where=where)

    def made_again(self, stage: Stage, table: Manifest, index: int) -> dict[Kind, pl.DataFrame]:
        """Make one part of a published table again, elsewhere, and return its rows and ledgers; the table stays.

        Raises StageError if the part cannot be made.
        """
        own = self._table(stage, dict(table.key_fields), table.inputs, table.sides, remake=table.remake)
        aside = self.store.directory(self.system, stage.name, f".verify-{own.writer.token}")
        try:
            with self.store.lock(aside, own.writer, waiting=partial(self._waiting, stage.name)):
                [job] = with_spans([replace(own.jobs(table, None, {})[index], directory=aside, reusable=False)])
                with self._crew(own, [job]) as crew:
                    results = [result for _, result in crew.run([job]) if not isinstance(result, PartProgress)]
                if not results or not isinstance(results[0], PartRecord):
                    why = results[0].error if results and isinstance(results[0], PartFailure) else "it was not made"
                    raise StageError(f"stage {stage.name!r}, part {index}: {why}")
                return {kind: scan_parts(aside, [results[0]], kind).collect() for kind in KINDS}
        finally:
            remove_tree(aside)

    def _table(
        self,
        stage: Stage,
        fields: dict[str, Any],
        inputs: Sequence[TableRef],
        sides: Sequence[TableRef],
        *,
        remake: int = 0,
    ) -> NewTable:
        return NewTable(self.system, self.store, self.build, stage, fields, tuple(inputs), tuple(sides), remake)

    def _budget(self, stage: Stage) -> Budget:
        own = stage.quarantine_budget
        return Budget(
            stage=stage.name,
            share=self.quarantine_budget if own is None else own,
            transient=self.quarantine_budget,
            own=own is not None,
        )

    def _reused(self, stage: Stage, manifest: Manifest) -> tuple[Manifest, bool]:
        if spec := stage.holds:
            self.pool.used(spec)
        self._hold_release(stage, manifest.parts, [*manifest.inputs, *manifest.sides], key=manifest.key)
        self.store.point(manifest.ref)
        self.progress.end(manifest, reused=True)
        return manifest, True

    def _hold_release(self, stage: Stage, parts: Sequence[PartRecord], reads: Sequence[TableRef], *, key: str) -> None:
        """Raise ReleaseError if this is the table to release and too small; the newest is its own measure."""
        if stage.name != self.released:
            return
        last = self.store.current(self.system, stage.name)
        lost = losses(upstream(reads, self.store))
        own = loss(stage.name, sum(part.stop - part.start for part in parts), parts)
        self.release.hold(
            sum(part.files["rows"].rows for part in parts),
            stage=stage.name,
            last=None if last and last.key == key else last,
            why=sentence([*lost, *([own] if own.rows else [])]),
        )

    def _locked(
        self,
        table: NewTable,
        *,
        base: Manifest | None = None,
        replaces: str | None = None,
        again: Again | None = None,
        where: str | None = None,
    ) -> tuple[Manifest, bool]:
        """Make a table unless another build publishes it while this one waits for the lock."""
        waiting = partial(self._waiting, table.stage.name)
        with self.store.lock(table.directory, table.writer, waiting=waiting):
            found = self.store.published(self.system, table.stage.name, table.key)
            if found is None and base:
                self._adopt(table, base)
            manifest = found or self._make(table, again, base, where)
            if replaces:
                self.store.supersede(manifest, replaces)
            if found:
                return self._reused(table.stage, found)
            self.progress.end(manifest, reused=False)
            return manifest, False

    def _waiting(self, stage: str, holder: str) -> None:
        self.progress.note(stage, f"waits: {holder} is writing this table")

    def _adopt(self, table: NewTable, base: Manifest) -> None:
        """Start a replay with the parts of the table before it that have nothing in quarantine."""
        done = self.store.parts(table.directory)
        source = self.store.table_directory(base.ref)
        clean = [part for part in base.parts if part.index not in done and not part.files["quarantined"].rows]
        adopt_parts(source, table.directory, clean, writer=table.writer.token)

    def _take_over(
        self, table: NewTable, earlier: Manifest, jobs: Sequence[PartJob], done: dict[int, PartRecord]
    ) -> list[PartRecord]:
        """Take over what an earlier table has made of the rows of parts that are not done; return these parts."""
        source = self.store.table_directory(earlier.ref)
        left = [job for job in jobs if job.index not in done]
        found = list(
            taken_over(self.store, earlier, left, stage=table.stage, files=table.files, checksums=table.checksums)
        )
        adopted = adopt_parts(source, table.directory, found, writer=table.writer.token)
        done |= {part.index: part for part in adopted}
        if found:
            self.progress.note(
                table.stage.name, f"reuses {len(found):,} of {len(jobs):,} parts, made from the same rows"
            )
        return adopted

    def _left(
        self, table: NewTable, jobs: Sequence[PartJob], parts: Mapping[int, PartRecord], again: Again | None
    ) -> tuple[dict[int, PartRecord], list[PartRecord]]:
        """Return the parts that an earlier build left and that stay, by index, and those taken back to be made again.

        To make all of a table again that has all its parts and was refused is to begin with none. `places` come from
        the jobs: a part may have been taken over from a table that read the same rows in other files.
        """
        by_index = {job.index: job for job in jobs}
        found = {
            index: part.model_copy(update={"places": job.places})
            for index, part in parts.items()
            if (job := by_index.get(index)) is not None and (job.start, job.stop) == (part.start, part.stop)
        }
        refused = len(found) == len(jobs)
        kept = {
            index: part
            for index, part in found.items()
            if part.settled and not (again and (part.files["quarantined"].rows or (again == "all" and refused)))
        }
        back = [part for index, part in parts.items() if index not in kept]
        forget_parts(table.directory, back, writer=table.writer.token)
        return kept, [part for index, part in found.items() if index not in kept]

    def _make(self, table: NewTable, again: Again | None, base: Manifest | None, where: str | None) -> Manifest:
        stage, directory = table.stage, table.directory
        started = time.monotonic()
        earlier = None if again else earlier_table(self.store, self.system, stage, table.fields)
        found = self.store.parts(directory)
        jobs = table.jobs(base, earlier, found)
        done, back = self._left(table, jobs, found, again)
        taken = self._take_over(table, earlier, jobs, done) if earlier else []
        rows_in = sum(len(job) for job in jobs)
        self.begun[stage.name] = Begun(directory, rows_in)
        self.progress.begin(stage.name, total=rows_in, done=sum(part.stop - part.start for part in done.values()))
        if back:
            counted = ", ".join(f"{rule} {count:,}" for rule, count in _counts(back).items()) or "none"
            self.progress.note(stage.name, f"rebuilds {len(back)} finished parts with rows in quarantine: {counted}")
        missing = [job for job in jobs if job.index not in done]
        loading, work = Loading(), None
        if where:
            from normloom.run.chosen_rows import with_rows  # which imports DuckDB

            missing = with_rows(missing, table.files, where, root=self.store.root, stage=stage.name)
        if missing:
            missing = with_spans(missing)
            try:
                with self._crew(table, missing) as crew:
                    loading, work = self._work(table, crew, missing, done, rows_in)
            finally:
                forget_tables()
        if where and (left := len(jobs) - len(done)):
            raise PartlyMadeError(
                f"stage {stage.name!r}: {len(done):,} of {len(jobs):,} parts are built, {len(missing):,} of them new; "
                f"to build the other {left:,} and publish the table, run the same command without the condition"
            )
        parts = [done[job.index] for job in jobs]
        self._hold_budget(table, parts)
        self._hold_release(stage, parts, [*table.inputs, *table.sides], key=table.key)
        self.progress.note(stage.name, "checks")
        rows = scan_parts(directory, parts)
        checked = checked_before(earlier, directory, taken, parts) if earlier and taken else None
        results, aside = run_checks(rows, stage.contract, stage=stage, checked=checked)
        for result in results:
            if not result.passed:
                log.warning("%s: check %s %s: %s", stage.name, result.name, FAILED[result.on_fail], result.detail)
        if self._budget(stage).holds(_counts(parts, aside), sum(part.attempts for part in parts)):
            require(results, stage=stage.name)
        if aside:
            parts = [without_failing(table, part, aside) for part in parts]
            self._hold_budget(table, parts)
            self._hold_release(stage, parts, [*table.inputs, *table.sides], key=table.key)
        manifest = Manifest(
            system=self.system,
            stage=stage.name,
            key=table.key,
            key_fields=table.fields,
            content=content_hash(parts),
            inputs=list(table.inputs),
            sides=list(table.sides),
            parts=parts,
            rows_in=rows_in,
            seconds=time.monotonic() - started,
            load_seconds=loading.seconds,
            work=work,
            checks=results,
            build=self.build,
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
            remake=table.remake,
        ).sealed()
        self.store.publish(manifest)
        return manifest

    def _hold_budget(self, table: NewTable, parts: Sequence[PartRecord]) -> None:
        """Raise QuarantineBudgetError if parts have more rows in quarantine than the stage may have."""

        def ledger() -> pl.DataFrame:
            return scan_parts(table.directory, parts, "quarantined").select("row_id", "rule", "reason").collect()

        self._budget(table.stage).require(_counts(parts), sum(part.attempts for part in parts), ledger)

    def _work(
        self, table: NewTable, crew: Crew, missing: Sequence[PartJob], done: dict[int, PartRecord], rows_in: int
    ) -> tuple[Loading, Work]:
        """Make the parts that are missing, put them with those that are done and return what that took."""
        started = time.monotonic()
        times: list[float] = []
        maker = PartMaker(
            stage=table.stage,
            store=self.store,
            crew=crew,
            rows_in=rows_in,
            budget=self._budget(table.stage),
            progress=self.progress,
            spending=self.spending,
            require_open=self.pool.require_open,
        )
        with noting(partial(self.progress.note, table.stage.name)):  # of parts that this process makes itself
            for part in maker.made(missing):
                times.append(time.monotonic() - started)
                self.spending.add(part)
                done[part.index] = part
                self.progress.advance(table.stage.name, part)
        if any(job.index not in done for job in missing):
            raise self.spending.stopped(table.stage.name)
        loading, memory = crew.take_loading(), crew.memory()
        work = Work.of(
            [done[job.index] for job in missing],
            seconds=times[-1],
            first=times[0],
            loads=loading.count,
            host_bytes=memory.host,
            device_bytes=memory.device,
        )
        return loading, work

    @contextmanager
    def _crew(self, table: NewTable, jobs: Sequence[PartJob]) -> Iterator[Crew]:
        """Give the crew of the stage's model or its own processes; this process if it needs neither."""
        stage, spec = table.stage, table.stage.holds
        if spec is None or not (any(len(job) for job in jobs) or not stage.inputs):
            yield InlineCrew()
            return
        self.progress.note(stage.name, self.pool.awaits(spec))
        note = partial(self.progress.note, stage.name)
        with self.pool.lease(spec, note=note, found=table.placed(spec)) as crew:
            yield crew


def _counts(parts: Sequence[PartRecord], aside: Mapping[str, str] | None = None) -> dict[str, int]:
    """Return the rows in quarantine by rule: those of parts, and more that checks take out (row -> rule)."""
    return total([*(part.quarantined_by for part in parts), Counter((aside or {}).values())])
