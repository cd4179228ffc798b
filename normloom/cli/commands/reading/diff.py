"""normloom diff."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from normloom.cli.common import DEFAULT_STORE, JsonOption, StoreOption, escaped, out, stored_as
from normloom.core.formats.json_text import json_text
from normloom.core.rows.text import counted

if TYPE_CHECKING:
    from normloom.cli.output.drift import DimensionDrift
    from normloom.core.table import FileRecord
    from normloom.history.builds import BuildLock
    from normloom.lineage.diff import StageDiff
    from normloom.lineage.table_diff import TableDiff

SHIFTS = 5  # labels shown of each dimension; --json gives all
WIDTH = 160  # characters shown of an old and a new value together
DIGEST = 12  # characters shown of the SHA-256 of a file
LEAD = 20  # characters shown before the first that differs


def diff(
    before: Annotated[str, typer.Argument(metavar="BUILD_A", help="The earlier build.")] = "previous",
    after: Annotated[str, typer.Argument(metavar="BUILD_B", help="The later build.")] = "last",
    system: Annotated[str | None, typer.Option(help="The system, if the store has several.")] = None,
    store: StoreOption = DEFAULT_STORE,
    rows: Annotated[int, typer.Option(min=0, help="Changed rows to show for each stage.")] = 3,
    json_: JsonOption = False,
) -> None:
    """Show what changed between two builds: stages, rows, values, dropped rows and label drift.

    Name a build by its id, a unique prefix or suffix of it, or last, last~1 (or previous), last~2. Rows are matched by
    row id, which is stable across builds.

    Examples:

        normloom diff

        normloom diff last~3 last --system savacu --rows 10

        normloom diff 20261122T0151 f6cd --json
    """
    from normloom.cli.output.drift import label_drift
    from normloom.history.builds import find_build
    from normloom.lineage.diff import diff as compare
    from normloom.store.store import Store

    where, system = Store(store), stored_as(system)
    first = find_build(where, before, system=system)
    second = find_build(where, after, system=system or first.system)
    stages = compare(first, second, where, examples=rows)
    drifts = {stage.stage: label_drift(*stage.refs, where) if stage.table and stage.refs else [] for stage in stages}
    if json_:
        print(json_text(_as_json(first, second, stages, drifts)))
        return
    out.print(f"[bold]{first.system}[/] {_titled(first)} → {_titled(second)}", highlight=False)
    if all(stage.state == "same" for stage in stages):
        out.print("Nothing changed: both builds have the same tables.")
        return
    out.print(_overview(stages))
    for stage in stages:
        for line in _details(stage):
            out.print(line, highlight=False)
        if drifts[stage.stage]:
            out.print(_drift_line(drifts[stage.stage]), highlight=False)
            out.print(Padding(_drift_table(drifts[stage.stage]), (0, 0, 0, 4), expand=False))


def _as_json(
    first: BuildLock, second: BuildLock, stages: list[StageDiff], drifts: Mapping[str, list[DimensionDrift]]
) -> dict[str, Any]:
    described = [
        {**dataclasses.asdict(stage), "drift": [dataclasses.asdict(drift) for drift in drifts[stage.stage]]}
        for stage in stages
    ]
    return {"system": first.system, "before": first.build, "after": second.build, "stages": described}


def _titled(lock: BuildLock) -> str:
    return escaped(f"{lock.build} (profile {lock.profile})" if lock.profile else lock.build)


def _overview(stages: list[StageDiff]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("", no_wrap=True)
    for heading in ("rows", "dropped", "quarantined"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("because of")
    said = {
        "added": "only in the later",
        "removed": "only in the earlier",
        "same": "[dim]same table",
        "reproduced": "rebuilt, same rows",
        "changed": "[yellow]other rows",
    }
    for stage in stages:
        counts = [_arrow(stage, name) for name in ("rows", "dropped", "quarantined")]
        table.add_row(stage.stage, said[stage.state], *counts, _named(stage.fields))
    return table


def _arrow(stage: StageDiff, name: str) -> str:
    sides = [f"{getattr(side, name):,}" for side in (stage.before, stage.after) if side]
    return sides[0] if len(set(sides)) == 1 else " → ".join(sides)


def _details(stage: StageDiff) -> Iterator[Text]:
    """Yield the lines about one stage; none if it has the same table in both builds."""
    if stage.state not in ("changed", "reproduced"):
        return
    lines: list[Text] = []
    if stage.gone:
        sides = " and ".join({"before": "earlier", "after": "later"}[side] for side in stage.gone)
        lines.append(
            Text(f"  the table of the {sides} build is no longer in the store: rows cannot be compared", "yellow")
        )
    if stage.table:
        lines += _table_lines(stage.table)
    for what, counts in (("dropped", stage.dropped), ("quarantined", stage.quarantined)):
        moved = [f"{name} {was:,} → {now:,}" for name, (was, now) in counts.items() if was != now]
        if moved:
            lines.append(Text(f"  {what}: {', '.join(moved)}"))
    for name, pair in stage.files.items():
        lines.append(Text(f"  file {name}: {' → '.join(map(_file, pair))}"))
    if lines:
        yield Text(f"\n{stage.stage}", "bold")
        yield from lines


def _file(record: FileRecord | None) -> str:
    return f"{counted(record.bytes, 'byte')} ({record.sha256[:DIGEST]})" if record else "none"


def _table_lines(table: TableDiff) -> Iterator[Text]:
    yield Text(f"  rows: {table.added:,} added, {table.removed:,} removed, {table.changed:,} changed")
    if table.changed_in:
        yield Text("  changed in: " + ", ".join(f"{name} {count:,}" for name, count in table.changed_in.items()))
    for what, names in (("added", table.columns_added), ("removed", table.columns_removed)):
        if names:
            yield Text(f"  columns {what}: {', '.join(names)}")
    for name, (was, now) in table.retyped.items():
        yield Text(f"  column {name} is of another type, its values are not compared: {was} → {now}")
    for row in table.examples:
        yield Text(f"  row {row.row_id}", "dim")
        for name, (was, now) in row.values.items():
            old, new = shortened(was, now)
            yield Text.assemble(f"    {name}: ", (old, "red"), " → ", (new, "green"))


def shortened(before: Any, after: Any, *, width: int = WIDTH) -> tuple[str, str]:
    """Return two values as text of at most half the width each, starting shortly before the first difference."""
    old, new = (
        value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
        for value in (before, after)
    )
    same = next((index for index, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    start = max(same - LEAD, 0) if max(len(old), len(new)) > width // 2 else 0
    return _cut(old, start, width // 2), _cut(new, start, width // 2)


def _cut(text: str, start: int, width: int) -> str:
    return ("…" if start else "") + text[start : start + width] + ("…" if len(text) > start + width else "")


def _drift_line(drifts: Sequence[DimensionDrift]) -> Text:
    told = [
        f"{drift.dimension} " + (f"{drift.distance:.3f}" if drift.distance is not None else "- (a side has no labels)")
        for drift in drifts
    ]
    return Text(f"  drift of labels (total variation distance): {', '.join(told)}")


def _drift_table(drifts: Sequence[DimensionDrift]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("dimension", "label"):
        table.add_column(heading, no_wrap=True)
    for heading in ("before", "after", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    for drift in drifts:
        for label in [label for label in drift.labels if label.shift or label.before != label.after][:SHIFTS]:
            counts = f"{label.before:,}", f"{label.after:,}"
            table.add_row(escaped(drift.dimension), escaped(label.label), *counts, f"{label.shift:+.1%}")
        table.add_row(escaped(drift.dimension), "[dim]all", f"[dim]{drift.before:,}", f"[dim]{drift.after:,}", "")
    return table


def _named(fields: Sequence[str]) -> str:
    """Return the fields in one line, with changed code only counted."""
    from normloom.planning.changes import code_counted

    settings, code = code_counted(fields)
    return ", ".join([*settings, *code])
