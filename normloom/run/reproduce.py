"""Make random parts of published tables again and compare them with what is stored."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from normloom.core.errors import NormloomError
from normloom.core.models.model_roles import each_of
from normloom.core.rows.rules import CRASH, OUTAGE, POISON
from normloom.core.stage import Stage
from normloom.core.table import KINDS, Kind, Manifest, PartRecord
from normloom.history.builds import BuildLock
from normloom.labelling.seen import with_answers
from normloom.models.registry import engine_of
from normloom.planning.keys import key_fields, stage_key
from normloom.run.runner import StageRunner
from normloom.store.forgotten import deny_list
from normloom.store.parts import scan_parts
from normloom.store.store import Store

_UNREPEATABLE = frozenset({POISON, CRASH, OUTAGE})


@dataclass(frozen=True, kw_only=True)
class Remade:
    """A part that was made again.

    `promise`: what its engines promise, in words; `found`: how it came out; `same`: whether it keeps the promise.
    """

    stage: str
    part: int
    promise: str
    found: str
    same: bool


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Parts that were made again, and why stages have none in the sample."""

    remade: Sequence[Remade]
    left_out: Mapping[str, str]


def sample(
    stages: Sequence[Stage], lock: BuildLock, *, store: Store, runner: StageRunner, count: int, seed: int | None = None
) -> Sample:
    """Make `count` random parts of a build's tables again, all if there are fewer; what is stored stays as it is."""
    left_out: dict[str, str] = {}
    choices: list[tuple[Stage, Manifest, PartRecord]] = []
    for stage in stages:
        table = (
            store.published(lock.system, stage.name, lock.stages[stage.name].key) if stage.name in lock.stages else None
        )
        if stage.table:
            continue
        if why := _why_not(stage, table, store):
            left_out[stage.name] = why
        elif table:
            choices += [(stage, table, part) for part in table.parts if _is_repeatable(part)]
    chosen = random.Random(seed).sample(choices, min(count, len(choices)))  # noqa: S311  # a sample, no secret
    order = {id(stage): position for position, stage in enumerate(stages)}
    remade = [_compared(*one, store=store, runner=runner) for one in sorted(chosen, key=lambda one: order[id(one[0])])]
    return Sample(remade=remade, left_out=left_out)


def _why_not(stage: Stage, table: Manifest | None, store: Store) -> str | None:
    """Say why a stage's parts cannot be compared, None if they can."""
    if table is None:
        return "has no table that can be read"
    if stage.files:
        return "leaves files; training is not repeated"
    fields = key_fields(
        table.system,
        with_answers(stage, store),
        inputs=[ref.content for ref in table.inputs],
        sides=[ref.content for ref in table.sides],
        forgotten=deny_list(store).digest,
    )
    if stage_key(fields, remake=table.remake) != table.key:
        return "code, settings or models have changed since; normloom why shows which"
    return None


def _is_repeatable(part: PartRecord) -> bool:
    """Return whether making a part again would come to the same: checks of the whole table took nothing out of it."""
    checked = any("-checked" in record.name for record in part.files.values())
    return not checked and _UNREPEATABLE.isdisjoint(part.quarantined_by)


def _promise(tolerance: float | None) -> str:
    """Say what an engine with this tolerance promises of the same request; None: nothing."""
    if tolerance is None:
        return "nothing"
    return f"equal texts, numbers within {tolerance:g}" if tolerance else "bit-equal"


def _compared(stage: Stage, table: Manifest, part: PartRecord, *, store: Store, runner: StageRunner) -> Remade:
    tolerance = _tolerance(stage)
    promise = _promise(tolerance)
    try:
        frames = runner.made_again(with_answers(stage, store), table, part.index)
    except NormloomError as error:
        return Remade(stage=stage.name, part=part.index, promise=promise, found=str(error), same=False)
    directory = store.table_directory(table.ref)
    before = {kind: scan_parts(directory, [part], kind).collect() for kind in KINDS}
    differences = list(_differences(before, frames, 0.0))
    found, same = "bit-equal", True
    if differences:
        beyond = list(_differences(before, frames, tolerance or 0.0))
        same = tolerance is None or not beyond
        found = "; ".join(beyond or [f"within the tolerance: {difference}" for difference in differences])
    return Remade(stage=stage.name, part=part.index, promise=promise, found=found, same=same)


def _tolerance(stage: Stage) -> float | None:
    """Return what the engines of a stage promise all together, None if one promises nothing."""
    promised = [engine_of(spec).tolerance for spec in each_of(stage.model)] if stage.model else []
    known = [one for one in promised if one is not None]
    return None if len(known) < len(promised) else max(known, default=0.0)


def _differences(
    before: Mapping[Kind, pl.DataFrame], after: Mapping[Kind, pl.DataFrame], tolerance: float
) -> Iterator[str]:
    for kind in KINDS:
        one, other = before[kind], after[kind]
        if one.height != other.height:
            yield f"{other.height:,} {kind} instead of {one.height:,}"
        elif one.columns != other.columns:
            yield f"columns of {kind} differ"
        else:
            for name in one.columns:
                if count := _differing(one[name], other[name], tolerance):
                    yield f"{kind}, column {name}: {count:,} of {one.height:,} differ"


def _differing(one: pl.Series, other: pl.Series, tolerance: float) -> int:
    """Return how many values of a column differ, numbers and lists of numbers by more than the tolerance."""
    pairs = zip(one.to_list(), other.to_list(), strict=True)
    return sum(not _alike(before, after, tolerance) for before, after in pairs)


def _alike(before: object, after: object, tolerance: float) -> bool:
    if isinstance(before, float) and isinstance(after, float):
        both_nan = before != before and after != after  # noqa: PLR0124  # NaN
        return both_nan or before == after or abs(before - after) <= tolerance * max(1.0, abs(before))
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(lambda a, b: _alike(a, b, tolerance), before, after))
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(_alike(before[name], after[name], tolerance) for name in before)
    return before == after
