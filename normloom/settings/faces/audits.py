"""An audit of a system's release: a small flow of its own, over the tables that the system has published."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from normloom.core.errors import UsageError
from normloom.core.stage import Stage, published_stage
from normloom.core.table import Manifest
from normloom.store.latest import released_key
from normloom.store.store import Store
from normloom.tasks.audit.audit import audit
from normloom.tasks.audit.auditing import Auditing, AuditView, ChosenFigure
from normloom.tasks.audit.bounds import Bound

FIGURES = "audit_figures"  # the stage that has an audit's figures
MOST_VERDICTS = 6


@dataclass(frozen=True, kw_only=True)
class Audit:
    """An audit: the system under which its tables are stored, the flow's last stage and the table it looks at."""

    name: str
    end: Stage
    table: Manifest
    args: Auditing
    bounds: Sequence[Bound] = ()


def audit_name(system: str) -> str:
    """Return the name under which a store has the audits of a system, and people their queue."""
    return f"audit_{re.sub(r'[^a-z0-9_]', '_', system.lower())}"


def audit_of(  # noqa: PLR0913  # what an audit is, by name
    store: Store,
    system: str,
    view: AuditView,
    *,
    budget: int,
    figure: ChosenFigure = "share",
    of: str = "",
    stage: str | None = None,
    bounds: Sequence[Bound] = (),
    need: int | None = None,
    seed: int = 0,
) -> Audit:
    """Return the audit of a system's release, or of the newest table of one of its stages.

    Raises UsageError if there is no such table, and for columns and verdicts that it does not have.
    """
    table = _table(store, system, stage)
    rows = store.scan(table.ref)
    schema = rows.collect_schema()
    if view.verdict not in schema:
        raise UsageError(f"the table {table.ref.stage} has no column {view.verdict!r}; available: {', '.join(schema)}")
    values = rows.select(pl.col(view.verdict).cast(pl.String).unique().sort()).drop_nulls().collect().to_series()
    if not 1 < len(values) <= MOST_VERDICTS:
        raise UsageError(
            f"column {view.verdict!r} has {len(values)} values; an audit needs 2 to {MOST_VERDICTS} verdicts"
        )
    of = of or view.of or values[-1]
    if of not in values:
        raise UsageError(f"unknown verdict {of!r}; column {view.verdict!r} has {', '.join(values)}")
    margins = None if view.margin is None or view.margin in schema else _having(store, table, view.margin)
    known = view.margin if view.margin in schema or margins else None
    fields = {**view.model_dump(), "margin": known, "by": [name for name in view.by if name in schema], "of": of}
    args = Auditing(**fields, values=tuple(values), figure=figure, budget=budget, seed=seed)
    name = audit_name(system)
    end = audit(
        published_stage(table.ref, reader=name),
        args,
        name=name,
        bounds=tuple(bounds),
        need=need,
        margins=published_stage(margins.ref, reader=name) if margins else None,
    )
    return Audit(name=name, end=end, table=table, args=args, bounds=bounds)


def audited_figures(store: Store, table: Manifest) -> Manifest | None:
    """Return the newest figures of an audit of a table, None if this content was not audited."""
    figures = store.current(audit_name(table.system), FIGURES)
    if figures is None:
        return None
    frames = [ref for ref in figures.sides if ref.stage == "frame"]
    reads = [ref for frame in frames for ref in store.manifest(frame).inputs]
    if not any((ref.stage, ref.content) == (table.stage, table.content) for ref in reads):
        return None
    return figures


def bounds_of(figures: Manifest) -> list[Bound]:
    """Return the bounds that an audit asks for."""
    return [Bound.model_validate(one) for one in figures.key_fields["arguments"]["bounds"]]


def _table(store: Store, system: str, stage: str | None) -> Manifest:
    store.require(system)
    if stage is None:
        shown = released_key(store, system)
        found = shown and store.published(system, *shown)
    else:
        found = store.current(system, stage)
    if not found:
        what = f"no table {stage!r}" if stage else "no release"
        raise UsageError(
            f"{system} has {what} in {store.root}: run normloom build {system}, or normloom tables {system}"
        )
    return found


def _having(store: Store, table: Manifest, column: str) -> Manifest | None:
    """Return the table that a table's rows were made of and that has a column."""
    for ref in table.inputs:
        made_of = store.published(ref.system, ref.stage, ref.key)
        if made_of and column in store.scan(ref).collect_schema():
            return made_of
    return None
