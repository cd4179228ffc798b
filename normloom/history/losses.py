"""Why rows were lost: what each stage on the way to a table dropped and quarantined, by reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from normloom.core.table import Manifest, PartRecord, TableRef
from normloom.store.store import Store

REASONS = 3  # of one stage that a sentence names
STAGES = 5


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What a stage that read `rows_in` rows dropped (by reason) and quarantined (by rule), the commonest first.

    `attempts` are the rows that it set out to make, from those that it read or from side tables.
    """

    stage: str
    rows_in: int
    attempts: int
    dropped: Mapping[str, int]
    quarantined: Mapping[str, int]

    @property
    def rows(self) -> int:
        """How many rows went."""
        return sum(self.dropped.values()) + sum(self.quarantined.values())

    def __str__(self) -> str:
        ways = ((self.dropped, "dropped"), (self.quarantined, "quarantined"))
        told = [f"{_named(counts)} {way}" for counts, way in ways if counts]
        tried = f", tried {self.attempts:,}" if self.attempts != self.rows_in else ""
        return f"{self.stage} (read {self.rows_in:,}{tried}): {'; '.join(told)}"


def losses(manifests: Iterable[Manifest]) -> list[Loss]:
    """Return what was lost in each of the tables that lost rows, in their order."""
    found = [loss(one.stage, one.rows_in or one.attempts, one.parts) for one in manifests]
    return [one for one in found if one.rows]


def loss(stage: str, rows_in: int, parts: Sequence[PartRecord]) -> Loss:
    """Return what the parts of a table lost."""
    dropped: dict[str, int] = {}
    quarantined: dict[str, int] = {}
    for part in parts:
        for total, counts in ((dropped, part.dropped_by), (quarantined, part.quarantined_by)):
            for reason, rows in counts.items():
                total[reason] = total.get(reason, 0) + rows
    attempts = sum(part.attempts for part in parts)
    return Loss(
        stage=stage, rows_in=rows_in, attempts=attempts, dropped=_sorted(dropped), quarantined=_sorted(quarantined)
    )


def upstream(refs: Iterable[TableRef], store: Store) -> list[Manifest]:
    """Return the manifests of tables and of all that they were made of, each after those it read."""
    ordered: dict[str, Manifest] = {}

    def visit(ref: TableRef) -> None:
        if str(ref) in ordered:
            return
        manifest = store.published(ref.system, ref.stage, ref.key)
        if manifest is None:  # collected since
            return
        for read in (*manifest.inputs, *manifest.sides):
            visit(read)
        ordered[str(ref)] = manifest

    for ref in refs:
        visit(ref)
    return list(ordered.values())


def sentence(found: Sequence[Loss]) -> str:
    """Return the losses in one line: where most rows went, in the order of the stages."""
    most = sorted(found, key=lambda one: one.rows, reverse=True)[:STAGES]
    return ". ".join(str(one) for one in found if one in most) or "no stage dropped a row or quarantined one"


def _named(counts: Mapping[str, int]) -> str:
    named = [f"{rows:,} {reason}" for reason, rows in list(counts.items())[:REASONS]]
    more = sum(list(counts.values())[REASONS:])
    return ", ".join(named) + (f" and {more:,} more" if more else "")


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda pair: -pair[1]))
