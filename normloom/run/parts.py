"""Making the parts of a stage: what fails is traced to the rows that make it fail, what waits is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import polars as pl

from normloom.core.errors import StageError, WaitingError
from normloom.core.progress import Progress
from normloom.core.rows.rules import POISON
from normloom.core.stage import Stage
from normloom.core.table import PartRecord
from normloom.history.commands import store_option
from normloom.planning.costs.spending import Spending, batched, hosted
from normloom.run.budget import Budget
from normloom.store.parts import committed_part
from normloom.store.store import Store
from normloom.workers.crew import Crew, Halted, PartProgress, PartResult, PartWaiting, never
from normloom.workers.parts.job import PartFailure, PartJob
from normloom.workers.parts.part import part_row_ids

DEATHS_BEFORE_BISECTION = 2  # the first may be the machine's fault
MAX_DEATHS = 6  # of one part in which no row is found that does it


@dataclass(frozen=True, kw_only=True)
class PartMaker:
    """Makes the parts of one stage with a crew. `rows_in` is how many rows the stage reads, for its budget.

    `require_open` raises BuildCancelledError once the build was stopped.
    """

    stage: Stage
    store: Store
    crew: Crew
    rows_in: int
    budget: Budget
    progress: Progress
    spending: Spending
    require_open: Callable[[], None]

    def made(self, jobs: Sequence[PartJob]) -> Iterator[PartRecord]:
        """Yield parts as they are done; a part that fails is cut down to the rows that make it fail.

        Raises WaitingError at the end if parts wait for work sent elsewhere, and StageError for a part that fails
        though none of its rows does alone.
        """
        stage = self.stage
        deaths: Counter[int] = Counter()
        pending = list(jobs)
        # Only what failed once is made alone; and a part that is paid for when it is sent has no second copy.
        alone = bool(stage.model and batched(stage.model))
        waiting: list[PartWaiting] = []
        while pending:
            failed: list[tuple[PartJob, PartFailure]] = []
            results = self.crew.run(pending, alone=alone, halted=self._halted())
            yield from self._sorted(results, failed, waiting)
            pending, alone = [], True
            for job, failure in failed:
                committed = committed_part(job.directory, job.index) if failure.died else None
                if committed:  # it died with the part done
                    yield committed
                    continue
                deaths[job.index] += failure.died
                if failure.died and deaths[job.index] % DEATHS_BEFORE_BISECTION:
                    pending.append(job)
                    continue
                marked = self._without_poison(job, failure)
                if marked == job and (not failure.died or deaths[job.index] > MAX_DEATHS):
                    raise StageError(
                        f"stage {stage.name!r} failed in part {job.index}, though none of its rows fails alone: "
                        f"{failure.error}"
                    )
                pending.append(marked)
        if waiting:
            parts = f" for {len(waiting)} of {len(jobs)} parts" if len(jobs) > 1 else ""
            last = waiting[-1]
            where = store_option(self.store.root) if last.in_store else ""
            raise WaitingError(f"stage {stage.name!r} waits{parts}: {last.reason}{where}")

    def _sorted(
        self,
        results: Iterable[tuple[PartJob, PartResult]],
        failed: list[tuple[PartJob, PartFailure]],
        waiting: list[PartWaiting],
    ) -> Iterator[PartRecord]:
        """Yield the parts that are done, say how far others are, and keep those that failed or wait."""
        said = ""
        for job, result in results:
            if isinstance(result, PartRecord):
                yield result
                self.require_open()
            elif isinstance(result, PartProgress):
                said = self._within(job, result, said)
            elif isinstance(result, PartWaiting):
                waiting.append(result)
            elif isinstance(result, PartFailure):
                failed.append((job, result))

    def _within(self, job: PartJob, progress: PartProgress, said: str) -> str:
        """Say how far a part is, and what its step says of it if that is not what was `said` last; return that."""
        self.progress.within(self.stage.name, job.index, round(progress.share * len(job)))
        if progress.note and progress.note != said:
            self.progress.note(self.stage.name, progress.note)
        return progress.note or said

    def _halted(self) -> Halted:
        """Return what says that no further part may be begun: hosted models have been asked enough."""
        model = self.stage.model
        return (lambda: self.spending.reached) if model and hosted(model) else never

    def _without_poison(self, job: PartJob, failure: PartFailure) -> PartJob:
        """Return the part with the rows marked that make it fail, found by halving; as it is if none does."""
        stage = self.stage
        if stage.part_rows is None or (job.poisoned and not failure.died):
            raise StageError(f"stage {stage.name!r} failed in part {job.index}: {failure.error}")
        self.progress.note(stage.name, f"part {job.index} failed, looking for the row")
        poisoned: dict[str, PartFailure] = {}
        suspects = [job]
        while suspects:
            halves = [half for suspect in suspects for half in _halves(suspect)]
            failing = list(_failures(self.crew.run(halves, probe=True, alone=True)))
            suspects = [half for half, _ in failing if len(half) > 1]
            alone = [(half, why) for half, why in failing if len(half) == 1]
            for row, why in self._confirmed(alone):
                poisoned[part_row_ids(row)[0]] = why
                counts = Counter(failed.rule for failed in poisoned.values())
                self.budget.require(counts, self.rows_in, partial(_entries, poisoned))
        return replace(job, poisoned={**job.poisoned, **poisoned})

    def _confirmed(self, found: Sequence[tuple[PartJob, PartFailure]]) -> Iterator[tuple[PartJob, PartFailure]]:
        """Yield the rows that fail alone; one at which process or machine gave out must do so twice."""
        yield from (pair for pair in found if pair[1].rule == POISON)
        suspected = [job for job, why in found if why.rule != POISON]
        yield from _failures(self.crew.run(suspected, probe=True, alone=True))


def _failures(results: Iterable[tuple[PartJob, PartResult]]) -> Iterator[tuple[PartJob, PartFailure]]:
    return ((job, result) for job, result in results if isinstance(result, PartFailure))


def _halves(job: PartJob) -> list[PartJob]:
    """Return the part cut in two; a single row as it is."""
    middle = (job.start + job.stop) // 2
    return [replace(job, stop=middle), replace(job, start=middle)] if len(job) > 1 else [job]


def _entries(poisoned: Mapping[str, PartFailure]) -> pl.DataFrame:
    entries = [{"row_id": row, "rule": why.rule, "reason": why.error} for row, why in poisoned.items()]
    return pl.DataFrame(entries)
