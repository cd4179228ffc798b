"""Normloom from Python: any data as a table, a flow of steps built, looked at and traced."""

from __future__ import annotations

import ast
import inspect
import logging
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from datasets import Dataset
from in_process import SCRIPTED as SCRIPTED_SYSTEMS
from in_process import prepared

import normloom as nl
from normloom.api.frames import Frame
from normloom.core.errors import ConfigError, ReleaseError, UsageError
from normloom.core.models.protocol import Completion, GenerateRequest, ScoreRequest, Scores
from normloom.core.stage import dropped, dropped_frame
from normloom.settings.config import PROFILES
from normloom.store.store import Store
from normloom.testing.inline import made

ROWS: list[dict[str, Any]] = [
    {"prompt": "Could you help me, please?", "n": 1},
    {"prompt": "<b>Give it.</b>", "n": None},
]
SCRIPTED = nl.ModelSpec(engine="scripted", model="toy", options={"yes_rate": 0.5})


class Politeness(nl.Args):
    question: str = "Is it polite?"
    longest: int = 100


@nl.step(makes={"prompt": pl.String, "n": pl.Int64, "polite": pl.Float64})
def tone(rows: pl.DataFrame, model: nl.LanguageModel) -> pl.DataFrame:
    return rows.with_columns(polite=nl.yes(model, "Is it polite?", rows["prompt"]))


@nl.step(makes={"prompt": pl.String, "n": pl.Int64, "polite": pl.Float64}, part_rows=2, quarantine_budget=0.5)
def tolerant(rows: pl.DataFrame, model: nl.LanguageModel) -> pl.DataFrame:
    return rows.with_columns(polite=nl.yes(model, "Is it polite?", rows["prompt"]))


@nl.step(makes=nl.Contract(columns={"prompt": pl.String()}), part_rows=1)
def short(rows: pl.DataFrame, args: Politeness) -> nl.Output:
    fits = pl.col("prompt").str.len_chars() <= args.longest
    gone = [dropped(row, "too long") for row in rows.filter(~fits).iter_rows(named=True)]
    return nl.Output(rows=rows.filter(fits).select("row_id", "prompt"), dropped=dropped_frame(gone))


@pytest.mark.parametrize(
    "data",
    [
        ROWS,
        iter(ROWS),
        pl.DataFrame(ROWS),
        pl.LazyFrame(ROWS),
        pl.DataFrame(ROWS).to_arrow(),
        pd.DataFrame(ROWS).astype({"n": "Int64"}),
        Dataset.from_list(ROWS),
    ],
    ids=["records", "iterator", "polars", "lazy", "arrow", "pandas", "hugging face"],
)
def test_the_same_rows_are_the_same_table_whatever_holds_them(data: object) -> None:
    stage = nl.table(data)
    made = stage.function(stage.arguments, **stage.values).rows
    assert made.select("prompt", "n").to_dicts() == ROWS
    assert stage.values["frame"].digest == nl.table(ROWS).values["frame"].digest


@pytest.mark.parametrize("last", [{"a": 1.5}, {"b": 1.5}, {"a": 1, "c": [1]}])
@pytest.mark.parametrize("first", [{"a": 1}, {"a": None}])
def test_records_late_in_a_table_lose_nothing(first: dict[str, object], last: dict[str, object]) -> None:
    stage = nl.table([first] * 200 + [last])
    rows = stage.function(stage.arguments, **stage.values).rows
    found = rows.tail(1).to_dicts()[0]
    assert {name: found[name] for name in last} == last


def test_another_value_or_type_is_another_table() -> None:
    digests = {
        nl.table(rows).values["frame"].digest
        for rows in (ROWS, ROWS[::-1], [{"prompt": "x"}], pl.DataFrame(ROWS, schema_overrides={"n": pl.Float64}))
    }
    assert len(digests) == 4


def test_times_that_differ_by_a_nanosecond_are_two() -> None:
    one, other = (pl.DataFrame({"at": [[at]]}, schema={"at": pl.List(pl.Datetime("ns"))}) for at in (1, 2))
    assert Frame.of(one) != Frame.of(other)


def test_a_named_index_of_pandas_is_a_column() -> None:
    stage = nl.table(pd.DataFrame({"n": [1]}, index=pd.Index(["x"], name="id")))
    assert stage.values["frame"].rows.to_dicts() == [{"id": "x", "n": 1}]


def test_a_path_is_read_with_the_records_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "one"}\nnot json\n')
    stage = nl.table(path, name="mine")
    made = stage.function(stage.arguments, **stage.values)
    assert (stage.name, made.rows["prompt"].to_list(), made.quarantined.height) == ("mine", ["one"], 1)


def test_a_path_is_read_with_the_settings_of_a_source(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"data": [{"prompt": "one"}, {"prompt": "two"}]}')
    stage = nl.table(path, field="data", limit=1, quarantine_budget=0.5)
    assert stage.function(stage.arguments, **stage.values).rows["prompt"].to_list() == ["one"]
    assert stage.quarantine_budget == 0.5
    with pytest.raises(ConfigError, match="unknown setting fields, did you mean field"):
        nl.table(path, fields="data")
    with pytest.raises(UsageError, match="field applies to files, not to list"):
        nl.table(ROWS, field="data")


def test_columns_of_a_file_with_reserved_names_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("row_id,parents,content,through,source_content\n1,2,3,4,5\n")
    store = Store(tmp_path / "store")
    rows = store.scan(made("mine", [nl.table(path)], store)["table"].ref).collect()
    kept = {"source_row_id": "1", "source_parents": "2", "source_source_content": "3", "source_through": "4"}
    assert rows.drop("row_id", "parents").to_dicts() == [{"source_row": 1, **kept, "source_content": "5"}]
    assert rows["parents"].to_list() == [[]]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (7, "a table is a frame, an iterable of dicts or a path, not int"),
        ({"a": [1]}, "not dict"),
        ([{"row_id": "x"}], "column 'row_id' is a name reserved by Normloom: rename it"),
        (pl.DataFrame({"a": [object()]}), "column 'a' holds Python objects"),
        ([{"a": [1]}, {"a": "x"}], "column 'a' holds list (record 0) and str (record 1)"),
        ([{"a": 1}, {"a": "x"}], "column 'a' holds int (record 0) and str (record 1)"),
        ([{"a": 2**53 + 1}, {"a": 1.5}], "which is not exact as a float"),
        ([{"a": 2**64}], "which takes more than 64 bits"),
        ([{"a": {"b": [True, "x"]}}], "column 'a.b[]' holds bool (record 0) and str (record 0)"),
        ([{"a": {}}], "column 'a' holds objects without fields"),
        (pl.LazyFrame({"a": [1]}).select("b"), "table 'table' cannot be made of LazyFrame: ColumnNotFoundError"),
        (pl.DataFrame({"a": [2**70]}), "column 'a' holds integers of 128 bits"),
        (["one", "two"], "an iterable of dicts or a path, not list of str"),
        (
            pd.DataFrame({"a": pd.period_range("2026-01", periods=1, freq="M")}),
            "column 'a' holds periods of pandas, whi",
        ),
        (
            pd.DataFrame({"a": pd.interval_range(0, 1)}),
            "column 'a' holds intervals of pandas, which others read as num",
        ),
    ],
)
def test_what_is_no_table_is_refused(data: object, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        nl.table(data)
    assert sentence in str(caught.value)


def test_a_partial_build_without_the_tables_that_it_reads_starts_nothing(tmp_path: Path) -> None:
    kept = short(tone(nl.table(ROWS), SCRIPTED), Politeness())
    with pytest.raises(UsageError, match="'tone' has no table yet, but a stage to build reads it: build it first"):
        nl.build(kept, store=tmp_path / "store", only=["short"])
    assert not (tmp_path / "store").exists()


def test_a_flow_is_planned_built_reused_and_looked_at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rated = tone(nl.table(ROWS), SCRIPTED)
    kept = short(rated, Politeness(longest=20))
    store = tmp_path / "store"
    assert [one.stage.name for one in nl.plan([kept], store=store).to_do] == ["table", "tone", "short"]
    result = nl.build(kept, store=store, name="politeness")
    assert capfd.readouterr() == ("", "")
    assert result.rows.collect()["prompt"].to_list() == ["<b>Give it.</b>"]
    assert sorted(result.tables) == ["short", "table", "tone"]
    assert result["tone"].collect()["polite"].is_between(0, 1).all()
    assert result.dropped.collect().select("stage", "reason").rows() == [("short", "too long")]
    assert result.quarantined.collect().is_empty()
    assert (result.system, result.manifest.stage, result.reused) == ("politeness", "short", frozenset())
    assert repr(result).startswith("<Result of politeness: 1 row; 3 of 3 tables made, in ")
    html = result._repr_html_()
    assert "<td>tone</td><td>2</td>" in html
    assert "<b>Give" not in html

    again = nl.build(kept, store=store, name="politeness")
    assert again.reused == {"table", "tone", "short"}
    longer = short(rated, Politeness(longest=30))
    [change] = nl.why(longer, store=store, name="politeness")
    assert change.field == "arguments.longest"
    with pytest.raises(UsageError, match="no row 99: the released table has"):
        nl.trace(result, 99)
    found = nl.trace(result)
    assert [row.stage for row in found.rows] == ["short", "tone", "table"]
    assert nl.query("SELECT count(*) AS n FROM politeness_tone", store=store).item() == 2
    assert nl.trace(store, found.row_id).rows == found.rows


def test_bytes_are_rows_like_any_others() -> None:
    stage = nl.table(pl.DataFrame({"picture": [b"\x00\xff", b"\x00\xff", b"1"], "source_row": [3, 1, 2]}))
    made = stage.function(stage.arguments, **stage.values).rows
    assert made["source_row"].to_list() == [3, 1, 2]
    assert made["content"].n_unique() == 3


@pytest.mark.usefixtures("found_prefect")
def test_a_plan_says_what_is_to_do(tmp_path: Path) -> None:
    planned = nl.plan(nl.table(ROWS, name="mine"), store=tmp_path, name="toy")
    assert repr(planned) == "<Plan of toy: 1 of 1 stages to do: mine (new)>"
    assert repr(planned["mine"]) == "<mine: new>"


def test_progress_is_shown_and_leaves_the_logs_of_the_process_as_they_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("normloom")
    before = log.level, log.propagate, log.handlers.copy()
    nl.build(tone(nl.table(ROWS), SCRIPTED), store=tmp_path, name="shown", progress=True)
    assert "tone: published" in capsys.readouterr().err
    assert (log.level, log.propagate, log.handlers) == before


@pytest.mark.usefixtures("found_prefect")
def test_a_text_that_the_model_cannot_read_costs_its_row(tmp_path: Path) -> None:
    deaf = SCRIPTED.model_copy(update={"options": {"overflow_on": "Give it"}})
    built = nl.build(tolerant(nl.table(ROWS), deaf), store=tmp_path, name="deaf", resources=nl.Resources(actors=0))
    assert built.rows.collect()["prompt"].to_list() == [ROWS[0]["prompt"]]
    assert built.quarantined.select("stage", "rule").collect().rows() == [("tolerant", "poison")]


class Away:
    """A model behind an endpoint that does not answer now."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scores]:
        return [Scores(logprobs=(), tokens_in=0, error="503", transient=True) for _ in requests]

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        raise NotImplementedError


def test_an_endpoint_that_is_away_is_not_the_row_s_fault() -> None:
    """The runner sees a connection error, which it does not take for a result."""
    with pytest.raises(ConnectionError, match="503"):
        nl.yes(Away(), "Is it polite?", ["a"])


@pytest.mark.usefixtures("found_prefect")
def test_how_to_resume_is_said_for_what_was_built(tmp_path: Path) -> None:
    lost = SCRIPTED.model_copy(update={"options": {"raise_on": "e"}})
    with pytest.raises(nl.NormloomError) as caught:
        nl.build(tone(nl.table(ROWS), lost), store=tmp_path, name="lost")
    assert "to resume: build it from Python again" in caught.value.__notes__


def test_a_system_is_planned_by_its_name(tmp_path: Path) -> None:
    found = nl.plan("savacu", store=tmp_path, limit=2, settings=["rounds=0"])
    assert {one.state for one in found.stages} == {"new"}


def test_files_are_given_as_paths_too(tmp_path: Path) -> None:
    prompts, profile, flow = tmp_path / "prompts.csv", tmp_path / "mine.yaml", tmp_path / "flow.py"
    prompts.write_text("text\nIs it safe?\n")
    profile.write_text((PROFILES / "local.yaml").read_text())
    given = nl.plan("savacu", store=tmp_path, profile=profile, source=prompts, text_column="text")
    assert given["ingest"].state == "new"
    lines = ["import normloom as nl", f"from {__name__} import Politeness, short", "def flow():"]
    lines.append("    return short(nl.table([{'prompt': 'a'}]), args=Politeness())")
    flow.write_text("\n".join(lines))
    assert [one.stage.name for one in nl.plan(flow, store=tmp_path).stages][-1] == "short"


def test_a_system_is_built_by_its_name_with_the_options_of_the_command(tmp_path: Path) -> None:
    settings = [*SCRIPTED_SYSTEMS["savacu"], "pairs=false", "classify.route=exhaustive", "rounds=0"]
    found = prepared("savacu", Store(tmp_path), *settings, "source.limit=6")
    tables = made("savacu", found.ends, Store(tmp_path))
    result = nl.build("savacu", store=tmp_path, limit=6, settings=settings)
    assert (result.system, result.reused) == ("savacu", frozenset(tables))
    assert result.manifest.key == tables["publish"].key
    assert result.rows.collect().height == tables["publish"].count("rows")
    assert result.dropped.collect().height == sum(table.count("dropped") for table in tables.values())
    bound = ['release.at_least=["precision misaligned 0.9"]', "release.unaudited=fail"]
    with pytest.raises(ReleaseError, match="has not been audited: run normloom audit savacu"):
        nl.build("savacu", store=tmp_path, limit=6, settings=[*settings, *bound])


def test_what_cannot_be_explained_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name the stage of savacu to explain"):
        nl.why("savacu", store=tmp_path)
    with pytest.raises(UsageError, match="unknown stage 'tune'; available: table, tone"):
        nl.why(tone(nl.table(ROWS), SCRIPTED), "tune", store=tmp_path)


def test_what_cannot_be_built_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected the name of a system, a stage or a list of stages"):
        nl.build([], store=tmp_path)
    with pytest.raises(UsageError, match=r"a stage or a list of stages, got <step test_api\.tone>"):
        nl.build(tone, store=tmp_path)  # type: ignore[arg-type]  # a step that is not called
    with pytest.raises(ConfigError, match="system 'a/b': begin with a letter or digit"):
        nl.build(nl.table(ROWS), name="a/b", store=tmp_path)
    with pytest.raises(UsageError, match="is a setting of a system"):
        nl.build(nl.table(ROWS), limit=3, store=tmp_path)
    with pytest.raises(TypeError, match="by its position in the rows of a result"):
        nl.trace(tmp_path, 0)


@pytest.mark.usefixtures("found_prefect")
def test_two_builds_are_compared_by_result_or_by_name(tmp_path: Path) -> None:
    first = nl.build(short(nl.table(ROWS), Politeness(longest=100)), store=tmp_path, name="tone")
    second = nl.build(short(nl.table(ROWS), Politeness(longest=20)), store=tmp_path, name="tone")
    for found in (nl.diff(first, second), nl.diff(store=tmp_path), nl.diff(first, "last", store=tmp_path)):
        [changed] = [stage for stage in found if stage.state == "changed"]
        assert changed.fields == ["arguments.longest"]
        assert changed.dropped == {"too long": (0, 1)}
        assert changed.table is not None
    with pytest.raises(UsageError, match="unknown build 'x'"):
        nl.diff("x", store=tmp_path)
    versions = [nl.export(result, tmp_path / f"out {result.built.build}").release for result in (first, second)]
    assert [(release.version, release.rows) for release in versions] == [
        ("1.0.0", first.rows.collect().height),
        ("1.1.0", second.rows.collect().height),
    ]


def test_one_name_is_installed() -> None:
    assert (distribution("normloom").read_text("top_level.txt") or "").split() == ["normloom"]


def test_frames_of_the_same_rows_are_one_value() -> None:
    one, same, other = (Frame.of(pl.DataFrame({"a": values})) for values in ([1, 2], [1, 2], [2, 1]))
    assert one == same
    assert {one, same, other} == {one, other}


def test_public_names_are_these() -> None:
    assert " ".join(sorted(nl.HOMES)) == (
        "AccountingError Args BuildCancelledError Check CheckError ClusterError Compared ConfigError Contract "
        "ContractError Embedder EngineDiedError LabelQueue LanguageModel ModelError ModelSpec Needs NormloomError "
        "Output PartlyMadeError ProductFiles QuarantineBudgetError Question ReleaseError Resources Result Run Sampling "
        "SourceError SpendingError Stage StageError StoreError UsageError WaitingError ask build diff dropped_rows "
        "each export files_of forget free labels model_from open_queue open_store plan purge query queues routed "
        "step table trace why with_adapter yes"
    )
    assert set(nl.HOMES) <= set(dir(nl))
    for name in nl.HOMES:
        assert getattr(nl, name).__name__ == name


def test_checkers_of_types_see_what_is_imported_when_it_is_used() -> None:
    [guarded] = [node for node in ast.parse(inspect.getsource(nl)).body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module
        for node in ast.walk(guarded)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == nl.HOMES


def test_frames_of_the_same_rows_are_one_in_a_set() -> None:
    rows = pl.DataFrame({"a": [1, 2]})
    assert len({Frame.of(rows), Frame.of(rows.clone()), Frame.of(rows.reverse())}) == 2
