from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from normloom.core.contract import Check, Contract
from normloom.core.table import CheckResult, Work
from normloom.history.builds import BuildLock, StageLock
from normloom.prefect.pages.artifact import artifact_key
from normloom.prefect.pages.lineage_page import Lineage, build_page, lineage_graph, stage_page
from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.testing.toy import SCRIPTED, Words, echo_stage, runner, words_stage

ODD = 'a|b `c` "d" *e* [f](g)\n<h> \\ ~i~ #j; é'


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    """Tables made by the build `test`: words, two echoes of them (the first loses two rows), and again over both."""
    loom = runner(Store(tmp_path_factory.mktemp("store")))
    words = words_stage(*"abcde")
    checked = Contract(columns=words.contract.columns, checks=(warning(),))
    words = replace(words, contract=checked)
    echo = echo_stage(words, drop="b", aside="c", part_rows=2)
    other = replace(echo_stage(words), name="other")
    again = replace(echo_stage(echo), name="again", inputs=(echo, other))
    lineage = Lineage(
        system="toy",
        build="test",
        graph={stage.name: [upstream.name for upstream in stage.upstream] for stage in stages_of(again)},
    )
    for stage in stages_of(again):
        inputs = [lineage.manifests[upstream.name].ref for upstream in stage.inputs]
        lineage.manifests[stage.name], _ = loom.run(stage, inputs, [])
    return lineage


def warning() -> Check:
    arguments = {"column": "word", "value_set": ["a", "b"]}
    return Check(expectation="expect_column_values_to_be_in_set", arguments=arguments, on_fail="warn")


def tables(page: str) -> list[list[list[str]]]:
    """Return the tables of a page as a reader of markdown sees them: rows of cells of plain text."""
    found: list[list[list[str]]] = []
    for before, token in pairwise(MarkdownIt("commonmark").enable("table").parse(page)):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif before.type in {"th_open", "td_open"}:
            found[-1][-1].append("".join(child.content for child in token.children or []))
    return found


def edges(graph: str) -> set[tuple[str, str]]:
    names = dict(re.findall(r'^(s\d+)\["(\w+)<br/>', graph, re.MULTILINE))
    return {(names[start], names[end]) for start, end in re.findall(r"^(s\d+) --> (s\d+)$", graph, re.MULTILINE)}


def test_the_page_of_a_table_names_the_command_that_shows_its_rows(lineage: Lineage) -> None:
    elsewhere = replace(lineage, store="/data/my store")
    assert "`normloom view toy --table echo --store '/data/my store'`" in stage_page(elsewhere, "echo")
    here = replace(lineage, store=str(Path("store").absolute()))
    assert "`normloom view toy --table echo`" in stage_page(here, "echo")


@pytest.mark.parametrize(
    ("names", "key"),
    [
        (("savacu",), "savacu"),
        (("savacu", "generate_0_smollm2"), "savacu-generate-0-smollm2"),
        (("My System", "Über__Stage."), "my-system-ber-stage"),
    ],
)
def test_a_key_is_what_prefect_allows(names: tuple[str, ...], key: str) -> None:
    assert artifact_key(*names) == key


def test_a_page_accounts_for_every_row(lineage: Lineage) -> None:
    rows = tables(stage_page(lineage, "echo"))[0]
    assert rows[1:] == [
        ["in", "5", ""],
        ["attempted", "5", "= out + dropped + quarantined"],
        ["out", "3", ""],
        ["dropped", "1", "asked for 1"],
        ["quarantined", "1", "asked 1"],
    ]


def test_a_page_shows_checks_and_what_they_found(lineage: Lineage) -> None:
    [check] = tables(stage_page(lineage, "words"))[1][1:]
    assert check == [warning().name, "warned", '3 of 5 rows, such as ["c", "d", "e"]']
    assert "The contract asks for none" in stage_page(lineage, "echo")


def test_a_page_links_to_what_the_table_reads_and_who_reads_it(lineage: Lineage) -> None:
    known = replace(lineage, pages={"words": "17"})
    page = stage_page(known, "echo")
    assert f"| [words](/v2/artifacts/artifact/17) | 5 | `{lineage.manifests['words'].key}` |" in page
    assert "| [again](/v2/artifacts/key/toy-again) | 8 | made by this build |" in page
    assert "[toy](/v2/artifacts/key/toy)" in page
    assert "No table: the flow starts here." in stage_page(lineage, "words")
    assert "No stage: the flow ends here." in stage_page(lineage, "again")


def test_a_page_says_how_its_table_was_made(lineage: Lineage) -> None:
    manifest = lineage.manifests["echo"]
    facts = {name: fact for name, fact in tables(stage_page(lineage, "echo"))[-1]}  # noqa: C416  # typed
    assert (
        facts.items()
        >= {
            "model": SCRIPTED.model,
            "engine": "scripted 2",
            "options": '{"words": 4}',
            "key": manifest.key,
            "content": manifest.content,
            "build": "test",
        }.items()
    )
    assert facts["parts"].startswith("3, ")


def test_a_page_tells_what_the_work_took(lineage: Lineage) -> None:
    usage = {"prompt_tokens": 1000.0, "cached_tokens": 250.0, "slots_used": 30.0, "slots": 40.0, "retries": 2.0}
    counts = {"tokens_in": 900, "tokens_out": 3000, "seconds": 1.5, "usage": usage}
    part = lineage.manifests["echo"].parts[0].model_copy(update=counts)
    work = Work.of([part], seconds=2.0, first=0.5, loads=2, host_bytes=1_500_000_000, device_bytes=0)
    changes = {"parts": [part], "work": work, "load_seconds": 7.0}
    manifest = lineage.manifests["echo"].model_copy(update=changes)
    page = stage_page(replace(lineage, manifests={**lineage.manifests, "echo": manifest}), "echo")
    facts = {name: fact for name, fact in tables(page)[-1]}  # noqa: C416  # typed
    assert (
        facts.items()
        >= {
            "tokens in": "900",
            "tokens out": "3,000",
            "model loads": "2, 7.0 seconds added up over the actors",
            "first part after": "0.5 seconds",
            "tokens read a second": "450",
            "tokens written a second": "1,500",
            "batch occupancy": "75%",
            "prompt tokens from the prefix cache": "25%",
            "retries": "2",
            "host memory of an actor": "1.50 GB",
        }.items()
    )
    assert "GPU memory of an actor" not in facts


@pytest.mark.parametrize(
    ("build", "stale", "headline"),
    [
        ("test", {}, "\nMade by this build. A stage of"),
        ("later", {}, "\nReused from build test. A stage of"),
        (
            "later",
            {"echo": "words has been rebuilt"},
            "\n**STALE** because words has been rebuilt; reused from build test. A stage of",
        ),
    ],
)
def test_the_headline_tells_how_the_table_stands(
    lineage: Lineage, build: str, stale: dict[str, str], headline: str
) -> None:
    assert headline in stage_page(replace(lineage, build=build, stale=stale), "echo")


def test_the_graph_is_the_flow_s_and_each_node_a_link(lineage: Lineage) -> None:
    graph = lineage_graph(lineage, here="echo")
    assert graph.startswith("```mermaid\nflowchart LR\n")
    assert edges(graph) == {("words", "echo"), ("words", "other"), ("echo", "again"), ("other", "again")}
    assert 's1["echo<br/>3 rows"]:::made' in graph
    assert 'click s1 href "/v2/artifacts/key/toy-echo"' in graph
    assert "class s1 here" in graph
    assert edges(lineage_graph(lineage, here="echo", near=True)) == {("words", "echo"), ("echo", "again")}


def test_the_graph_tells_tables_of_this_build_from_others(lineage: Lineage) -> None:
    words = lineage.manifests["words"]
    younger = lineage.manifests["echo"].model_copy(update={"build": "later"})
    some = replace(lineage, build="later", manifests={"words": words, "echo": younger})
    graph = lineage_graph(some)
    assert re.findall(r":::(\w+)", graph) == ["reused", "made", "unmade", "unmade"]
    assert "again<br/>not yet" in graph
    assert ":::stale" in lineage_graph(replace(some, stale={"words": "its source changed"}))


def test_a_table_that_the_build_has_not_reached_is_told_from_one_that_is_not_there(lineage: Lineage) -> None:
    made = {name: lineage.manifests[name] for name in ("words", "echo")}
    earlier = {**lineage.manifests, "echo": lineage.manifests["words"]}  # what the build has goes before
    some = replace(lineage, build="later", manifests=made, earlier={name: earlier[name] for name in ("echo", "again")})
    graph = lineage_graph(some)
    assert re.findall(r":::(\w+)", graph) == ["reused", "reused", "unmade", "earlier"]
    assert "other<br/>not yet" in graph
    assert "again<br/>8 rows" in graph
    assert "| [again](/v2/artifacts/key/toy-again) | 8 | from build test, not reached yet |" in stage_page(some, "echo")
    assert "| [other](/v2/artifacts/key/toy-other) | not yet | not yet |" in stage_page(some, "words")


def test_a_long_flow_is_drawn_from_top_to_bottom_below_the_table_s_neighbours(lineage: Lineage) -> None:
    flow = {**lineage.graph, "select": ["again"], "split": ["select"], "publish": ["split"]}
    page = stage_page(replace(lineage, graph=flow), "again")
    near, whole = re.findall(r"```mermaid\n(?:%%.*%%\n)?(flowchart .*?)```", page, re.DOTALL)
    assert near.startswith("flowchart LR")
    assert edges(near) == {("echo", "again"), ("other", "again"), ("again", "select")}
    assert whole.startswith("flowchart TB")
    assert edges(whole) == {(upstream, stage) for stage, reads in flow.items() for upstream in reads}
    assert stage_page(lineage, "again").count("```mermaid") == 1


def test_the_build_s_page_lists_every_stage(lineage: Lineage) -> None:
    some = {name: lineage.manifests[name] for name in ("words", "echo")}
    known = replace(lineage, manifests=some, pages={"words": "17"})
    page = build_page(known, loads={"a|b": 2}, lock="test.yaml", seconds=3.21)
    assert "2 of 4 tables made, 0 reused, in 3.2 s. Model loads: a\\|b 2x. Lock: test.yaml." in page
    [stages] = tables(page)
    assert [row[:-1] for row in stages[1:]] == [
        ["words", "made by this build", "5", "5", "0", "0"],
        ["echo", "made by this build", "5", "3", "1", "1"],
        ["other", "not yet", "", "", "", ""],
        ["again", "not yet", "", "", "", ""],
    ]
    assert "[words](/v2/artifacts/artifact/17)" in page


def test_no_text_breaks_a_table(lineage: Lineage) -> None:
    manifest = lineage.manifests["echo"]
    part = manifest.parts[0].model_copy(update={"dropped_by": {ODD: 1}, "metrics": {ODD: 2.5}})
    odd = manifest.model_copy(
        update={
            "parts": [part],
            "checks": [CheckResult(name=ODD, passed=False, on_fail="warn", detail=ODD)],
            "key_fields": {"model": {"model": ODD}},
        }
    )
    page = stage_page(replace(lineage, manifests={**lineage.manifests, "echo": odd}), "echo")
    rows, checks, *_, facts = tables(page)
    line = " ".join(ODD.split())
    assert rows[4][2] == f"{line} 1"
    assert checks[1] == [line, "warned", line]
    assert ["model", line] in facts
    assert [line, "2.5"] in facts


def test_no_name_breaks_the_graph() -> None:
    graph = lineage_graph(Lineage(system="toy", build="test", graph={ODD: []}))
    [label] = re.findall(r'\["(.*)<br/>not yet"\]', graph)
    assert re.sub(r"#(\d+);", lambda code: chr(int(code[1])), label) == " ".join(ODD.split())
    assert not set(label) & set('"`[]<>|\n\\*')


def test_an_excluded_path_is_in_no_page(lineage: Lineage, tmp_path: Path) -> None:
    stage = words_stage("a")
    words = replace(stage, arguments=Words(words=("a",), where=tmp_path))
    manifest, _ = runner(Store(tmp_path)).run(words, [], [])
    known = replace(lineage, manifests={**lineage.manifests, "words": manifest})
    pages = [stage_page(known, "words"), build_page(known, loads={}, lock="test.yaml", seconds=0)]
    assert not any(str(tmp_path) in page for page in pages)


def test_a_page_tells_when_its_table_was_made_and_how_its_rows_changed(lineage: Lineage) -> None:
    now = lineage.manifests["echo"]

    def build(day: int, key: str, rows: int) -> BuildLock:
        stage = StageLock(key=key, content=key, rows=rows, dropped=day)
        return BuildLock(system="toy", build=f"202611{day:02}T020000-0000", stages={"echo": stage})

    earlier = [build(1, "one", 7), build(2, "one", 7), build(3, "two", 1), build(4, now.key, 3), build(5, now.key, 3)]
    found = tables(stage_page(replace(lineage, builds=earlier), "echo"))[-2]
    assert found == [
        ["build", "began", "rows", "change", "dropped", "quarantined"],
        ["test", "", "3", "+2", "1", "1"],
        ["20261103T020000-0000", "2026-11-03 02:00 UTC", "1", "-6", "3", "0"],
        ["20261101T020000-0000", "2026-11-01 02:00 UTC", "7", "", "1", "0"],
    ]
