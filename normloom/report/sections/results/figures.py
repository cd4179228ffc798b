"""Every table of figures (`normloom.schemas.tables.FIGURES`), whatever stage made it."""

from __future__ import annotations

from collections.abc import Iterator

from normloom.report.blocks import Block, Note, Table, Tiles
from normloom.report.figure_plots import heat_scale, named, plots
from normloom.report.material import Material
from normloom.report.section import Data, Section
from normloom.schemas.tables import FIGURES


def collect(material: Material) -> Data | None:
    """Return the figures of each table under the contract."""
    stages = material.having(*FIGURES.columns)
    if not stages:
        return None
    return {
        "tables": [
            {
                "stage": stage,
                "figures": list(material.rows(stage).select(*FIGURES.columns).collect().iter_rows(named=True)),
            }
            for stage in stages
        ]
    }


def draw(data: Data) -> Iterator[Block]:
    """Show the plots of each table, all figures, and those that are undefined with the reason."""
    scale = heat_scale(figure for table in data["tables"] for figure in table["figures"])
    for table in data["tables"]:
        figures = table["figures"]
        lacking = [figure for figure in figures if figure["undefined"] is not None]
        yield Tiles(values={f"figures of {table['stage']}": len(figures), "undefined": len(lacking)})
        yield from plots([figure for figure in figures if figure["undefined"] is None], scale)
        labels = ("of", "axis", "slice_by", "slice")
        if lacking:
            yield Note(text="A figure without a value is undefined, not 0. Below is why.")
            yield Table(
                title=f"{table['stage']}: undefined figures",
                headings=("metric", *labels, "rows", "why"),
                rows=[
                    [named(figure["metric"]), *(figure[name] for name in labels), figure["rows"], figure["undefined"]]
                    for figure in lacking
                ],
                folded=True,
            )
        numbers = ("value", "low", "high", "spread")
        yield Table(
            title=f"{table['stage']}: all figures",
            headings=("metric", *labels, *numbers, "rows"),
            rows=[
                [
                    named(figure["metric"]),
                    *(figure[name] for name in labels),
                    *(figure[name] for name in numbers),
                    figure["rows"],
                ]
                for figure in figures
            ],
            folded=True,
        )


SECTION = Section(name="figures", title="Figures of merit", collect=collect, draw=draw)
