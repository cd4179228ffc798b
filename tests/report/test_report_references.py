from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_tables import measured

from normloom.core.errors import ConfigError
from normloom.core.progress import LogProgress
from normloom.core.stage import Stage
from normloom.history.builds import BuildLock, StageLock
from normloom.report.blocks import Table
from normloom.report.material import Material, find_material
from normloom.report.sections.data.references import collect, draw
from normloom.run.runner import StageRunner
from normloom.schemas.reference_figures import FILE, ReferenceFigure, load_reference_figures, reference_figures
from normloom.settings.systems import systems
from normloom.store.store import Store
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources


def material(store: Store, system: str, *ends: Stage) -> Material:
    """Make tables of a system and the lock of their build."""
    loom = StageRunner(system=system, store=store, pool=Pool(Resources(actors=0)), build="test", progress=LogProgress())
    refs = {end.name: loom.run(end, [], [])[0].ref for end in ends}
    stages = {name: StageLock(key=ref.key, content=ref.content, rows=ref.rows) for name, ref in refs.items()}
    store.write_build(system, "test", BuildLock(system=system, build="test", stages=stages).model_dump_json())
    return find_material(store, system)


def test_ours_stand_beside_the_printed_ones_in_their_unit(tmp_path: Path) -> None:
    ways = {"safety to value": 0.1, "value to safety": 0.3, "safety to cultural": 0.2}
    trade_offs = measured(
        "trade_off",
        *({"metric": "trade_off", "of": "r", "axis": axis, "value": value, "rows": 9} for axis, value in ways.items()),
        {
            "metric": "trade_off",
            "of": "r",
            "axis": "safety to value",
            "slice_by": "semantic_type",
            "slice": "object",
            "value": 0.9,
            "rows": 9,
        },
    )
    data = collect(material(Store(tmp_path), "misaligntrade", trade_offs))
    assert data is not None
    ours = {figure["figure"]: (figure["value"], figure["unit"], figure["ours"]) for figure in data["figures"]}
    assert ours["Smallest trade-off between two dimensions"] == (12, "%", [{"models": "r", "value": 10}])
    assert ours["Largest trade-off between two dimensions"] == (34, "%", [{"models": "r", "value": 30}])
    assert ours["Released responses"] == (190_744, "rows", [])
    _, table = draw(data)
    assert isinstance(table, Table)
    rows = {row[0]: row[1:4] for row in table.rows}
    assert rows["Largest trade-off between two dimensions"] == ["30 %", "r", "34 %"]
    assert rows["Released responses"] == ["not measured", "-", "190,744 rows"]


def test_only_the_axis_that_the_paper_speaks_of_is_compared(tmp_path: Path) -> None:
    figures: list[dict[str, Any]] = [
        {"metric": "ds", "of": "r1", "axis": axis, "value": value, "rows": 9}
        for axis, value in (("gender", 0.5), ("mean", 0.25))
    ]
    data = collect(material(Store(tmp_path), "demo_safetybench", measured("rater_figures", *figures)))
    assert data is not None
    [ds] = [figure for figure in data["figures"] if figure["metric"] == "ds"]
    assert (ds["value"], ds["ours"]) == (0.12, [{"models": "r1", "value": 0.25}])


def test_a_system_of_which_nothing_was_printed_has_no_such_section(tmp_path: Path) -> None:
    figure = {"metric": "ds", "of": "r1", "value": 0.5, "rows": 9}
    assert collect(material(Store(tmp_path), "own", measured("figures", figure))) is None


def test_every_printed_figure_belongs_to_a_system_that_can_be_built() -> None:
    assert {figure.system for figure in load_reference_figures(FILE)} <= set(systems())


def test_the_printed_figures_of_savacu() -> None:
    figures = {(figure.metric, figure.slice): figure.value for figure in reference_figures("savacu")}
    assert figures["removed_share", "simhash"] == 5.4
    assert figures["leakage", "embeddings"] == 2.2
    assert figures["human_agreement", "all"] == 84.6


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("value", "many", r"line 2, column value: .* number.*, found 'many'"),
        ("pick", "middle", r"line 2, column pick: "),
        ("source", "", r"line 2, column source: "),
    ],
)
def test_a_wrong_cell_is_named(tmp_path: Path, column: str, cell: str, message: str) -> None:
    row = {**reference_figures("misaligntrade")[0].model_dump(mode="json"), "models": "m", column: cell}
    file = tmp_path / "figures.csv"
    file.write_text(f"{','.join(ReferenceFigure.model_fields)}\n{','.join(map(str, row.values()))}\n")
    with pytest.raises(ConfigError, match=message):
        load_reference_figures(file)
