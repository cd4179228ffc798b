"""Rows through the stages: in, out, dropped and quarantined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from normloom.core.table import Manifest, TableRef
from normloom.report.blocks import Block, Note, Table
from normloom.report.material import Material
from normloom.report.plots import Series, bars
from normloom.report.section import Data, Section
from normloom.store.unpublished import unpublished

FATES = {"out": "rows", "dropped": "dropped", "quarantined": "quarantined"}


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
    """Show what became of the rows of each stage, as bars and as a table."""
    stages = data["stages"]
    yield Note(
        text="A stage takes in the rows of the tables it reads. One that draws makes more rows than it takes in; one "
        "that chooses drops the others, with a reason."
    )
    notes = [_why(stage) for stage in stages]
    yield bars(
        "What became of the rows of each stage",
        [stage["stage"] for stage in stages],
        [Series(name=name, values=[stage[key] for stage in stages], notes=notes) for name, key in FATES.items()],
        axis="rows",
        stacked=True,
        width="whole",
    )
    yield Table(
        title="Rows of each stage: attempted = out + dropped + quarantined",
        headings=("stage", "reads", "in", "attempted", "out", "dropped", "quarantined", "why"),
        rows=[
            [
                stage["stage"],
                ", ".join(stage["reads"]) or "-",
                *(stage[name] for name in ("rows_in", "attempts", "rows", "dropped", "quarantined")),
                why,
            ]
            for stage, why in zip(stages, notes, strict=True)
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


def _why(stage: Mapping[str, Any]) -> str:
    return _counted({**stage["dropped_by"], **stage["quarantined_by"]})


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{why} {rows:,}" for why, rows in reasons.items())


SECTION = Section(name="rows", title="Rows through the stages", collect=collect, draw=draw)
