"""Rows through the stages: in, out, dropped and quarantined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from normloom.flows.report.blocks import Block, Note, Table
from normloom.flows.report.material import Material
from normloom.flows.report.plots import Flow, sankey
from normloom.flows.report.section import Data, Section
from normloom.table import Manifest, TableRef
from normloom.unpublished import unpublished

STAGE, DROPPED, QUARANTINED = "#3b82f6", "#e8793a", "#dc2626"
REASONS = 4  # of one stage that are drawn
_FAINT = {STAGE: "rgba(59,130,246,0.28)", DROPPED: "rgba(232,121,58,0.45)", QUARANTINED: "rgba(220,38,38,0.5)"}


def collect(material: Material) -> Data:
    """Return the account of each stage, the tables whose rows it took in, and the quarantine of unpublished tables."""
    return {
        "stages": [
            {
                "stage": stage,
                "reads": {_table(ref, material.lock.system): ref.rows for ref in _taken_in(manifest)},
                "rows_in": manifest.rows_in,
                "attempts": manifest.attempts,
                "rows": manifest.count("rows"),
                "dropped": manifest.count("dropped"),
                "dropped_by": manifest.dropped_by,
                "quarantined": manifest.count("quarantined"),
                "quarantined_by": manifest.quarantined_by,
            }
            for stage, manifest in material.manifests.items()
        ],
        "unpublished": [
            {"stage": table.stage, "quarantined_by": table.quarantined_by}
            for table in unpublished(material.store, material.lock.system)
            if table.quarantined_by
        ],
    }


def _taken_in(manifest: Manifest) -> Sequence[TableRef]:
    """Return the tables whose rows a stage takes in: its inputs, and sides whose rows belong to those of the inputs."""
    return [*manifest.inputs, *(manifest.sides if "sides_on" in manifest.key_fields else ())]


def _table(ref: TableRef, system: str) -> str:
    return ref.stage if ref.system == system else f"{ref.system}/{ref.stage}"


def draw(data: Data) -> Iterator[Block]:
    """Show the flow of rows and the account of each stage."""
    stages = data["stages"]
    nodes, flows = _graph(stages)
    if flows:
        yield Note(
            text="Blue: rows that a stage takes in. Orange: dropped by the method, with the reason. Red: quarantined. "
            "A table that several stages read is drawn for each. A stage that draws makes more rows than it reads."
        )
        yield sankey("Rows through the stages", nodes, flows)
    headings = ("stage", "in", "attempted", "out", "dropped", "quarantined", "why")
    yield Table(
        title="Rows of each stage: attempted = out + dropped + quarantined",
        headings=headings,
        rows=[
            [*(stage[name] for name in ("stage", "rows_in", "attempts", "rows", "dropped", "quarantined")), _why(stage)]
            for stage in stages
        ],
    )
    if refused := data.get("unpublished"):
        yield Table(
            title="Rows in quarantine of tables that are not published: refused since this build, or not finished",
            headings=("stage", "quarantined", "why"),
            rows=[
                [table["stage"], sum(table["quarantined_by"].values()), _counted(table["quarantined_by"])]
                for table in refused
            ],
        )


def _graph(stages: Sequence[Mapping[str, Any]]) -> tuple[dict[str, str], list[Flow]]:
    flows: list[Flow] = []
    colours: dict[str, str] = {}
    for stage in stages:
        name = stage["stage"]
        ways = [(source, name, rows, STAGE) for source, rows in stage["reads"].items()]
        ways += [(name, f"dropped: {reason}", rows, DROPPED) for reason, rows in _most(stage["dropped_by"])]
        ways += [(name, f"quarantined: {rule}", rows, QUARANTINED) for rule, rows in stage["quarantined_by"].items()]
        for source, target, rows, colour in ways:
            if rows:
                colours.setdefault(source, STAGE)
                colours[target] = colour
                flows.append(Flow(source=source, target=target, value=rows, colour=_FAINT[colour]))
    return colours, flows


def _most(reasons: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the most frequent reasons, the others taken together; the table has them all."""
    ranked = sorted(reasons.items(), key=lambda reason: -reason[1])
    if len(ranked) <= REASONS:
        return ranked
    rest = ranked[REASONS - 1 :]
    return [*ranked[: REASONS - 1], (f"{len(rest)} other reasons", sum(rows for _, rows in rest))]


def _why(stage: Mapping[str, Any]) -> str:
    return _counted({**stage["dropped_by"], **stage["quarantined_by"]})


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{why} {rows:,}" for why, rows in reasons.items())


SECTION = Section(name="rows", title="Rows through the stages", collect=collect, draw=draw)
