from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
from report_tables import (
    GENERATOR,
    LABEL,
    ONE,
    THIRD,
    TWO,
    hand_made,
)
from typer.testing import CliRunner, Result

from normloom.cli.commands.reading.report import report as report_command
from normloom.core.errors import UsageError
from normloom.report.blocks import Note, Plot, Table, rounded
from normloom.report.material import Material, find_material
from normloom.report.page import page
from normloom.report.report import SECTIONS, report
from normloom.report.sections.data.duplicates import chance_warning
from normloom.report.sections.data.duplicates import draw as draw_duplicates
from normloom.report.sections.data.rows import draw as draw_rows
from normloom.report.sections.head import revision_of
from normloom.report.sections.work import _work
from normloom.store.store import Store
from normloom.testing.builds import built
from normloom.testing.toy import echo_stage, words_stage


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("store"))
    built(made, echo_stage(words_stage(*"ab")), build=ONE)
    built(made, *hand_made(), build=TWO, profile="test", settings=["classify.delta=0.4"])
    return made


@pytest.fixture(scope="module")
def made(store: Store) -> dict[str, Any]:
    return report(find_material(store, "toy"))


def section(made: Mapping[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any]
    [found] = [each["data"] for each in made["sections"] if each["name"] == name]
    return found


def blocks(made: Mapping[str, Any], name: str) -> list[object]:
    [draw] = [each.draw for each in SECTIONS if each.name == name]
    return list(draw(section(made, name)))


def test_the_newest_build_is_reported_with_the_sections_that_apply(made: dict[str, Any]) -> None:
    assert (made["system"], made["title"], made["build"]) == ("toy", "toy", TWO)
    names = [each["name"] for each in made["sections"]]
    assert names == [
        "build",
        "examples",
        "rows",
        "labels",
        "acceptance",
        "margins",
        "splits",
        "duplicates",
        "figures",
        "work",
    ]


def test_a_build_without_such_tables_has_fewer_sections(store: Store) -> None:
    found = report(find_material(store, "toy", "ab01"))
    assert (found["build"], [each["name"] for each in found["sections"]]) == (ONE, ["build", "rows", "work"])


def test_the_head_names_the_command_that_shows_the_rows(made: dict[str, Any], store: Store) -> None:
    assert made["sections"][0]["data"]["look"] == f"normloom view toy --store {store.root}"
    assert f"normloom view toy --store {store.root}" in page(made)


def test_the_head_says_what_was_built_by_what(made: dict[str, Any]) -> None:
    head = section(made, "build")
    assert (head["profile"], head["settings"]) == ("test", ["classify.delta=0.4"])
    assert head["started"] == "2026-11-22T00:00:02+00:00"
    assert head["released"] == {"echo": 4, "judge_0": 6, "coverage": 2, "split": 20, "rater_figures": 38}
    assert [(model["model"], model["stages"]) for model in head["models"]] == [("toy", ["echo"])]
    assert not head["embedded"]


def test_the_rows_of_each_stage_are_accounted_for(made: dict[str, Any]) -> None:
    stages = {stage["stage"]: stage for stage in section(made, "rows")["stages"]}
    assert stages["echo"] == {
        "stage": "echo",
        "reads": {"words": 6},
        "rows_in": 6,
        "attempts": 6,
        "rows": 4,
        "dropped": 1,
        "dropped_by": {"asked for": 1},
        "quarantined": 1,
        "quarantined_by": {"asked": 1},
    }
    [plot] = [block.figure for block in blocks(made, "rows") if isinstance(block, Plot)]
    place = plot["layout"]["yaxis"]["ticktext"].index("echo")
    assert {bar["name"]: bar["x"][place] for bar in plot["data"]} == {"out": 4, "dropped": 1, "quarantined": 1}
    [table] = [block for block in blocks(made, "rows") if isinstance(block, Table)]
    [row] = [row for row in table.rows if row[0] == "echo"]
    assert row == ["echo", "words", 6, 6, 4, 1, 1, "asked for 1, asked 1"]


def test_labels_before_and_after_expansion(made: dict[str, Any]) -> None:
    labels = section(made, "labels")["labels"]
    assert [(label["label"], label["before"], label["added"], label["missing"]) for label in labels] == [
        (LABEL, 3, 4, 1),
        ("value/equality", 2, 0, 0),
    ]


def test_examples_are_rows_of_the_tables_and_the_same_each_time(made: dict[str, Any], store: Store) -> None:
    examples = section(made, "examples")["examples"]
    assert [example["title"] for example in examples] == ["discarded: nonsense", "discarded: off_task"]
    assert examples[1]["facts"] == {"generator": "g1", "round": "1"}
    assert examples[1]["texts"] == {"prompt": THIRD, "discarded response": "yes"}
    assert section(report(find_material(store, "toy")), "examples")["examples"] == examples


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.0778, "0.078"),
        (8.2e-07, "< 0.001"),
        (-8.2e-07, "> -0.001"),
        (-0.25, "-0.250"),
        (1.0, "1"),
        (12.345, "12.35"),
        (284.71, "284.7"),
        (1234567.8, "1,234,568"),
    ],
)
def test_numbers_are_written_as_people_read_them(value: float | None, text: str) -> None:
    assert rounded(value) == text


def test_acceptance_by_round_generator_and_label(made: dict[str, Any]) -> None:
    found = section(made, "acceptance")
    assert found["rounds"] == [
        {"round": 0, "generator": GENERATOR, "aligned": 0, "misaligned": 1, "discarded": 0},
        {"round": 0, "generator": "g1", "aligned": 1, "misaligned": 0, "discarded": 1},
        {"round": 1, "generator": "g1", "aligned": 1, "misaligned": 0, "discarded": 2},
    ]
    assert found["reasons"] == {"nonsense": 2, "off_task": 1}
    # The label is on the first prompt (1 aligned, 1 misaligned) and the second (1 discarded, 1 aligned); equality on
    # the second and the third (2 discarded).
    assert found["labels"] == [
        {"dimension": "safety", "label": LABEL, "aligned": 2, "misaligned": 1, "discarded": 1},
        {"dimension": "value", "label": "value/equality", "aligned": 1, "misaligned": 0, "discarded": 3},
    ]


def test_margins_are_counted_in_their_bin(made: dict[str, Any]) -> None:
    found = section(made, "margins")
    edges, counts = found["edges"], found["counts"]
    bins = {
        verdict: [(edges[place], rows) for place, rows in enumerate(there) if rows] for verdict, there in counts.items()
    }
    assert bins == {
        "aligned": [(0.5, 1), (0.9, 1)],
        "misaligned": [(0.1, 1)],
        "discarded": [(0.0, 1), (0.2, 1), (0.975, 1)],
    }
    assert found["medians"] == pytest.approx({"aligned": 0.7, "misaligned": 0.1, "discarded": 0.2})


def test_split_sizes_and_leakage(made: dict[str, Any]) -> None:
    found = section(made, "splits")
    sizes = {each["split"]: (each["rows"], each["prompts"]) for each in found["splits"]}
    assert sizes == {"train": (16, 8), "validation": (2, 1), "test": (2, 1)}
    assert (found["leakage"], found["shares"]) == (0, {"train": 0.8, "validation": 0.1, "test": 0.1})


def test_removed_rows_by_reason_and_distance(made: dict[str, Any]) -> None:
    [found] = section(made, "duplicates")["stages"]
    assert (found["rows"], found["removed"], found["share"], found["warning"]) == (4, 1, 0.25, False)
    assert found["distances"] == [{"reason": "exact_duplicate", "distance": 0, "rows": 1}]
    assert found["removed_by"] == {"exact_duplicate": 1}


@pytest.mark.parametrize(("removed", "chance", "warns"), [(100, 0.9, False), (100, 1.1, True), (0, 1e-7, False)])
def test_chance_pairs_past_a_hundredth_of_the_removals_warn(
    store: Store, removed: int, chance: float, warns: bool
) -> None:
    material = find_material(store, "toy")
    manifest = material.manifests["duplicates"]
    part = manifest.parts[0]
    files = {**part.files, "rows": part.files["rows"].model_copy(update={"rows": removed})}
    metrics = {**part.metrics, "expected_chance_pairs": chance}
    changed = manifest.model_copy(
        update={"parts": [part.model_copy(update={"files": files, "metrics": metrics})], "rows_in": 1000}
    )
    [collect] = [each.collect for each in SECTIONS if each.name == "duplicates"]
    data = collect(Material(store=store, lock=material.lock, title="", manifests={"duplicates": changed}))
    assert data is not None
    warnings = [block.text for block in draw_duplicates(data) if isinstance(block, Note) and block.warning]
    assert bool(warnings) == warns
    assert chance_warning(changed) == (warnings[0] if warns else None)


def test_figures_are_told_whole_and_the_undefined_with_their_reason(made: dict[str, Any]) -> None:
    [table] = section(made, "figures")["tables"]
    assert (table["stage"], len(table["figures"])) == ("rater_figures", 38)
    assert table["figures"][0] == {
        "metric": "icc2_1",
        "of": "panel",
        "axis": "",
        "slice_by": "overall",
        "slice": "all",
        "value": 0.4,
        "low": 0.3,
        "high": 0.5,
        "spread": None,
        "rows": 350,
        "undefined": None,
    }
    [undefined] = [
        block for block in blocks(made, "figures") if isinstance(block, Table) and "undefined" in block.title
    ]
    assert list(undefined.rows) == [["ICC(2,1)", "panel", "", "domain", "<b>c</b>", 1, "one item only"]]


def test_each_kind_of_figure_has_its_plot(made: dict[str, Any]) -> None:
    plots = {block.title: block.figure for block in blocks(made, "figures") if isinstance(block, Plot)}
    kinds = {title: figure["data"][0]["type"] for title, figure in plots.items()}
    assert kinds == {
        "Labels kept over delta": "scatter",
        "Trade-off of released responses, object: passes the row, fails the column": "heatmap",
        "Demographic sensitivity": "heatmap",
        "Demographic parity difference": "heatmap",
        "Equalized odds difference": "heatmap",
        "Demographic sensitivity of r1 by domain": "heatmap",
        "Agreement of raters": "bar",
        "Share of Yes of human by rater_race x rater_gender": "heatmap",
        "ICC(2,1) of panel by domain": "bar",
        "Detection of misaligned responses": "bar",
    }
    assert plots["Labels kept over delta"]["data"][0]["y"] == [9, 4, 1]
    heat_maps = [figure["data"][0] for title, figure in plots.items() if kinds[title] == "heatmap"]
    assert {(each["zmin"], each["zmax"]) for each in heat_maps} == {(0, 0.4)}  # one scale, to the largest share of Yes
    assert plots["Demographic sensitivity"]["data"][0]["z"] == [[0.1, 0.1], [0.2, 0.2]]
    [matrix] = [figure["data"][0]["z"] for title, figure in plots.items() if title.startswith("Trade-off")]
    assert matrix == [[None, 0.25, 0.25], [0.25, None, 0.25], [0.25, 0.25, None]]
    crossed = plots["Share of Yes of human by rater_race x rater_gender"]
    assert crossed["layout"]["yaxis"]["ticktext"] == ["Asian", "White"]
    assert crossed["data"][0]["z"] == [[0.3, 0.4], [0.2, None]]
    bars = plots["Agreement of raters"]["data"]
    assert [(bar["name"], bar["x"]) for bar in bars] == [
        ("ICC(2,1)", [0.4]),
        ("ICC(2,k)", [0.87]),
        ("Krippendorff's alpha", [0.35]),
    ]
    assert bars[1]["error_x"]["array"] == pytest.approx([0.03])
    assert bars[1]["error_x"]["arrayminus"] == pytest.approx([0.07])
    assert "error_x" not in bars[2]


def test_work_tells_the_model_and_the_time_of_each_stage(made: dict[str, Any]) -> None:
    stages = {stage["stage"]: stage for stage in section(made, "work")["stages"]}
    assert {name for name, stage in stages.items() if stage["model"] == "toy"} == {"echo"}
    assert all(stage["seconds"] > 0 for stage in stages.values())
    assert stages["echo"]["cost"] is None


class Tags(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002  # its tag is enough
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_says_what_the_json_says_and_nothing_in_it_is_taken_for_html(made: dict[str, Any]) -> None:
    drawn = page(json.loads(json.dumps(made, allow_nan=False)))
    assert drawn == page(made)
    found = Tags()
    found.feed(drawn)
    assert found.tags.count("script") == 4  # the theme, the plots, plotly.js and what draws them
    assert not {"img", "b"} & set(found.tags)
    assert GENERATOR in found.text
    assert "<b>c</b>" in found.text
    plots = json.loads(drawn.partition('<script id="plots" type="application/json">')[2].partition("</script>")[0])
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in json.dumps(plots)
    assert "<img" not in json.dumps(plots)


def test_a_table_that_is_gone_is_said_and_its_section_left_out(store: Store, tmp_path: Path) -> None:
    copy = Store(shutil.copytree(store.root, tmp_path / "store"))
    shutil.rmtree(copy.root / "toy" / "judge_0")
    found = report(find_material(copy, "toy"))
    assert section(found, "build")["gone"] == ["judge_0"]
    assert not {"acceptance", "margins"} & {each["name"] for each in found["sections"]}
    [note] = [block.text for block in blocks(found, "build") if isinstance(block, Note) and block.warning]
    assert note == "Tables that are no longer in the store: judge_0."


Command = Callable[..., Result]


@pytest.fixture
def command(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    app = typer.Typer()
    app.command()(report_command)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NORMLOOM_STORE", str(store.root))
    return lambda *arguments: CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_the_command_writes_the_page_and_its_figures(command: Command, made: dict[str, Any], tmp_path: Path) -> None:
    ran = command("toy")
    assert ran.exit_code == 0
    assert str(tmp_path / "toy-report.html") in ran.stdout
    assert (tmp_path / "toy-report.html").read_text() == page(made)
    assert json.loads((tmp_path / "toy-report.json").read_text()) == made


def test_json_goes_to_the_terminal_and_no_file_is_written(command: Command, tmp_path: Path) -> None:
    ran = command("toy", "--json", "--build", ONE)
    assert json.loads(ran.stdout)["build"] == ONE
    assert [*tmp_path.iterdir()] == []
    command("toy", "--json", "--out", "a/b.html")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b.html", "b.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["other"], r"unknown system 'other' in .*; available: toy$"),
        (["toy", "--build", "zz"], rf"unknown build 'zz' of toy in .*; the newest are {TWO}, {ONE}$"),
        (["toy", "--store", "empty"], r"no tables in .*empty yet: run normloom build first"),
        (["toy", "--out", "a.json"], r"--out a.json: this is the name of the page's JSON file"),
        (["toy", "--out", "/proc/a.html"], r"cannot write /proc/a.html: .*; give --out a file that can be written"),
    ],
)
def test_what_cannot_be_reported_is_wrong_usage(command: Command, arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        command(*arguments)


def test_secrets_in_settings_are_not_in_the_report(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    given = ["source.path=https://me:hunter2@example.org/a.csv?token=hunter2", "source.items=/data/items.csv"]
    built(store, words_stage("a"), build=ONE, settings=given)
    found = report(find_material(store, "toy"))
    assert section(found, "build")["settings"] == [
        "source.path=https://example.org/a.csv",
        "source.items=/data/items.csv",
    ]
    assert "hunter2" not in page(found)


def test_a_model_of_the_hub_is_told_by_its_commit() -> None:
    assert revision_of({"weights": "commit 0123456789abcdef"}) == "commit 0123456789ab"
    assert revision_of({"weights": "0123456789abcdef"}) == "weights 0123456789ab"
    assert [revision_of({"revision": "v1", "weights": "x"}), revision_of({})] == ["v1", "-"]


def test_a_build_without_a_table_left_is_refused(tmp_path: Path) -> None:
    copy = Store(tmp_path)
    built(copy, words_stage("a"), build=ONE)
    shutil.rmtree(copy.root / "toy" / "words")
    with pytest.raises(UsageError, match=f"no table of build {ONE} is left in .*: build it again, or name another"):
        find_material(copy, "toy")


def test_rows_in_quarantine_of_tables_that_were_refused_are_listed(store: Store) -> None:
    data = {**section(report(find_material(store, "toy")), "rows")}
    data["unpublished"] = [{"stage": "judge_1", "quarantined_by": {"letters": 2, "length": 1}}]
    last = [*draw_rows(data)][-1]
    assert isinstance(last, Table)
    assert last.rows == [["judge_1", 3, "letters 2, length 1"]]


def test_a_table_of_an_earlier_version_says_nothing_of_its_work(store: Store) -> None:
    manifest = find_material(store, "toy").manifests["deduplicate"]
    assert set(_work(manifest.model_copy(update={"work": None})).values()) == {None}
