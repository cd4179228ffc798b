"""PersoDPO: the authors' pairs replayed exactly, and small data of our own from the prompts to the released pairs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from in_process import prepared
from pydantic import BaseModel
from tiny_models import save_tiny_llama

from normloom.core.errors import ConfigError, SourceError
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.flows.persodpo.config import QualitySettings
from normloom.lineage.trace import trace
from normloom.settings.settings import stages_for
from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.tasks.preferences.measure import Measuring
from normloom.tasks.preferences.pairs import Pairing
from normloom.tasks.preferences.replies import Replying
from normloom.testing.inline import made

Figures = dict[tuple[str, ...], float]


def figures(store: Store, tables: Mapping[str, Manifest], stage: str) -> Figures:
    rows = store.scan(tables[stage].ref).select("metric", "of", "axis", "slice", "value").collect()
    return {tuple(part for part in row[:4] if part not in {"", "all"}): row[4] for row in rows.iter_rows()}


def replayed(folder: Path, store: Store, *assignments: str) -> dict[str, Manifest]:
    files = f"path: {folder / 'generations.parquet'}, validation: {folder / 'validation.parquet'}"
    path = f"source={{{files}, holds: replies}}"
    return made(
        "persodpo", stages_for("persodpo", profile="replay", assignments=[path, *assignments], store=store).ends, store
    )


@pytest.fixture(scope="module")
def released(shared_data: Path) -> Path:
    return shared_data / "persodpo"


@pytest.fixture(scope="module")
def expected(released: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((released / "expected.json").read_text())
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def tables(released: Path, store: Store) -> dict[str, Manifest]:
    return replayed(released, store)


class TestReplay:
    def test_replies_parse_as_they_did(
        self, tables: dict[str, Manifest], store: Store, expected: dict[str, Any], released: Path
    ) -> None:
        found = figures(store, tables, "reply_figures")
        assert tables["replies"].count("rows") == 10_500
        assert [found["replies", status] for status in ("ok", "bad", "none")] == [7_363, 2_984, 153]
        for model, statuses in expected["per_model"].items():
            assert {name: found.get(("replies", name, model), 0) for name in statuses} == statuses
        sheet = pl.read_parquet(released / "generations.parquet").select("gen_id", "sheet_response")
        parsed = store.scan(tables["parsed"].ref).select("gen_id", "response", "parse_status").collect()
        ok = parsed.filter(parse_status="ok").join(sheet, on="gen_id")
        assert (ok["response"] == ok["sheet_response"]).all()

    def test_the_published_pairs(self, tables: dict[str, Manifest], store: Store, expected: dict[str, Any]) -> None:
        replies, pairs = figures(store, tables, "reply_figures"), figures(store, tables, "pair_figures")
        published = expected["as_published"]
        assert replies["scored", "replies"] == 10_347
        assert replies["average_words", "replies"] == 53
        assert round(replies["quality_quantile", "lower"], 6) == 0.581714
        assert round(replies["quality_quantile", "upper"], 6) == 0.679056
        assert (pairs["pairs", "quality"], pairs["prompts_with_pairs", "quality"]) == (9_184, 1_316)
        assert [round(pairs["margin", "quality", at], 4) for at in ("min", "median", "max")] == [0.1035, 0.4695, 0.8217]
        assert round(pairs["margin", "quality", "mean"], 4) == published["margin_mean"]
        assert round(pairs["weight", "quality", "mean"], 4) == published["sigmoid_mean"]
        assert round(pairs["weight", "quality", "variation"], 4) == published["sigmoid_cv"]
        assert round(pairs["longer_is_chosen", "quality"], 4) == published["longer_side_is_chosen"]
        for side in ("chosen", "rejected"):
            assert pairs[f"distinct_{side}", "quality"] == published[f"distinct_{side}_rows"]
            by_model = {name: pairs[side, "quality", name] for name in published[f"{side}_by_model"]}
            assert by_model == published[f"{side}_by_model"]
        assert tables["publish"].count("rows") == 9_184
        assert pairs["pairs", "simple"] == 12_452

    def test_most_pairs_tell_formats_apart_and_the_bonus_never_fires(
        self, tables: dict[str, Manifest], store: Store
    ) -> None:
        pairs, shortcuts = figures(store, tables, "pair_figures"), figures(store, tables, "shortcuts")
        assert (pairs["rejected_format", "quality"], pairs["rejected_content", "quality"]) == (7_074, 2_110)
        assert figures(store, tables, "reply_figures")["bonus_fired", "replies"] == 0
        assert shortcuts["auc", "format", "quality"] == pytest.approx(0.5 + 7_074 / 9_184 / 2)
        assert shortcuts["auc", "length", "quality"] > 0.8
        assert shortcuts["auc", "generator", "quality"] > 0.7
        assert shortcuts["auc", "format", "simple"] == 1
        [warned] = [check for check in tables["shortcuts"].checks if not check.passed]
        assert (warned.on_fail, warned.name) == ("warn", "expect_column_values_to_be_between(value)")

    def test_its_checks_fail_where_the_authors_code_does(self, tables: dict[str, Manifest], store: Store) -> None:
        rows = pl.concat(
            [store.scan(tables[name].ref) for name in ("checks", "reply_checks", "evaluation_checks")]
        ).collect()
        failed = rows.filter(~pl.col("passed")).select("check", "of", "found").rows()
        assert sorted(failed) == [
            ("C11", "PersoDPO perso", "197 of 1,000 raw replies parse, 603 replies have signals"),
            ("C11", "Qwen2-0.5B as is", "0 of 1,000 raw replies parse, 610 replies have signals"),
            ("C8", "json_bonus", "0 of 10,347 replies"),
            ("C9", "quality", "coefficient of variation 0.052"),
        ]

    def test_policies_are_measured_over_all_replies_and_over_the_valid_ones(
        self, tables: dict[str, Manifest], store: Store, expected: dict[str, Any]
    ) -> None:
        found = figures(store, tables, "evaluation_figures")
        for policy, values in expected["validation"].items():
            assert found["raw_reply_parses", policy] * 1000 == pytest.approx(values["raw_reply_parses"])
            assert round(found["failure", policy], 3) == values["failure"]
            assert round(found["seconds", policy], 4) == values["seconds_mean"]
            for signal in SIGNALS:
                for over in ("all", "valid"):
                    assert found[f"{signal}_{over}", policy] == pytest.approx(values[f"{signal}_{over}"], abs=5e-5)
        change = found["failure_change", "simple DPO", "Qwen2-0.5B as is"]
        assert change == pytest.approx(0 - 0.390)

    def test_a_pair_leads_to_its_replies_and_their_prompt(self, tables: dict[str, Manifest], store: Store) -> None:
        pair = store.scan(tables["publish"].ref).select("row_id", "prompt_id").head(1).collect()
        found = trace(store, pair["row_id"][0])
        assert pair["prompt_id"][0] in json.dumps(found, default=str)

    def test_the_bonus_on_the_raw_reply_changes_next_to_nothing(
        self, released: Path, expected: dict[str, Any], store: Store
    ) -> None:
        tables = replayed(released, store, "quality.bonus_tested_on=raw")
        replies, pairs = figures(store, tables, "reply_figures"), figures(store, tables, "pair_figures")
        raw = expected["json_tested_on_raw"]
        assert replies["bonus_fired", "replies"] == raw["json_bonus_fired"]
        assert pairs["pairs", "quality"] == raw["pairs"]
        assert pairs["prompts_with_pairs", "quality"] == raw["prompts_with_pairs"]
        assert round(replies["quality_quantile", "upper"], 6) == raw["q60"]
        assert round(pairs["margin", "quality", "median"], 4) == raw["margin_median"]


PROMPTS = "prompt_id,split,persona,context,reference\n" + "".join(
    f"p{number},train,I like tea number {number}.,User1: What now?,User2: Tea.\n" for number in range(6)
)
SIGNALS = ("coherence", "consistency", "utterance_entailment", "persona_distance")


def own_data(folder: Path) -> str:
    """Write replies of three models to six prompts (good, poor, cut off), and four that cannot be used."""
    rows: list[dict[str, Any]] = []
    for number in range(6):
        for model, text, signals in (
            ("good", '{"response": "Tea is what you like so have some."}', (0.9, 1, 2, 0.8)),
            ("poor", '{"response": "No."}', (0.1, 0, 0, 0.1)),
            ("cut", '{"response": "Tea is what you like and', (None,) * 4),
        ):
            reply = {"gen_id": f"{model}{number}", "prompt_id": f"p{number}", "model": model, "raw_reply": text}
            rows.append(reply | dict(zip(SIGNALS, signals, strict=True)))
    rows += [
        {**rows[0], "prompt_id": "p1"},
        {**rows[0], "gen_id": "lost", "prompt_id": "p9"},
        {**rows[0], "gen_id": "anonymous", "model": None},
        {**rows[0], "gen_id": "loud", "coherence": 1.5},
    ]
    pl.DataFrame(rows, infer_schema_length=None).write_ndjson(folder / "replies.jsonl")
    (folder / "prompts.csv").write_text(PROMPTS)
    return f"source={{path: {folder / 'replies.jsonl'}, prompts: {folder / 'prompts.csv'}, holds: replies}}"


def test_replies_of_one_s_own_become_pairs(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    settings = [own_data(tmp_path), "signals.by=released"]
    tables = made(
        "persodpo",
        stages_for("persodpo", profile="replay", assignments=settings, store=store).ends,
        store,
        quarantine_budget=1,
    )
    assert tables["replies"].quarantined_by == {"repeated_id": 1, "unknown_prompt": 1, "missing": 1}
    assert tables["signals"].quarantined_by == {"out_of_range": 1}
    assert tables["quality"].dropped_by == {"no_signal": 1}  # a reply without all its signals has no quality
    pairs = store.scan(tables["publish"].ref).collect()
    assert set(pairs["chosen_model"]) == {"good"}
    assert set(pairs.select("rejected_model", "rejected_kind").unique().rows()) == {
        ("cut", "format"),
        ("poor", "content"),
    }
    assert pairs.filter(dialogue=pairs["dialogue"][0])["split"].n_unique() == 1
    one = pairs.row(0, named=True)
    assert one["chosen"] == [{"role": "assistant", "content": '{"response": "Tea is what you like so have some."}'}]
    assert "I like tea number" in one["prompt"][1]["content"]
    assert one["weight"] == pytest.approx(1 / (1 + 2.718281828459045 ** -one["margin"]))


def test_models_of_a_profile_reply_and_are_measured(tmp_path: Path) -> None:
    store = Store(tmp_path)
    tables = made("persodpo", prepared("persodpo", store).ends, store)
    assert tables["reply_g1"].count("rows") == tables["reply_g2"].count("rows") == 6 * 18  # the prompts for training
    signals = store.scan(tables["signals"].ref).collect()
    assert set(signals.filter(signal="coherence")["source"]) == {"cosine of context and reply (e)"}
    valid = signals.join(
        store.scan(tables["parsed"].ref).select("gen_id", "parse_status").collect(), on="gen_id"
    ).filter(parse_status="ok")
    assert valid["value"].null_count() == 0
    assert tables["publish"].count("rows") > 0


def test_a_judge_says_what_replies_entail_if_a_profile_names_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    tables = made("persodpo", prepared("persodpo", store, "models.nli={engine: scripted, model: n}").ends, store)
    signals = pl.concat([store.scan(tables[name].ref) for name in ("signals", "judged_signals")]).collect()
    sources = dict(signals.select("signal", "source").unique().iter_rows())
    assert sources["consistency"] == sources["utterance_entailment"] == "asked (n)"
    assert sources["coherence"] == "cosine of context and reply (e)"
    assert tables["publish"].count("rows") > 0


def test_policies_of_a_profile_answer_the_validation_prompts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    good = '{"response": "%s"}'
    policies = (
        f"models.policies={{good: {{engine: scripted, model: a, options: {{frame: '{good}'}}}}, "
        f"poor: {{engine: scripted, model: b, options: {{frame: '{good}', frame_rate: 0.0001}}}}}}"
    )
    tables = made("persodpo", prepared("persodpo", store, policies).ends, store)
    answers = store.scan(tables["answers"].ref).collect()
    assert answers.group_by("policy").len().sort("policy").rows() == [("good", 6), ("poor", 6)]  # valid prompts alone
    assert answers.filter(policy="poor").select(SIGNALS).unique().rows() == [(0.0, -1.0, 0.0, 0.0)]  # the worst values
    found = figures(store, tables, "evaluation_figures")
    assert (found["failure", "good"], found["failure", "poor"]) == (0, 1)
    assert found["failure_change", "poor", "good"] == 1
    assert found["coherence_all", "good"] == found["coherence_valid", "good"] > 0
    assert found["coherence_valid", "poor"] is None  # no reply is valid: there is no figure


def test_a_limit_takes_the_first_prompts_of_each_split(tmp_path: Path) -> None:
    store = Store(tmp_path)
    tables = made("persodpo", prepared("persodpo", store, "source.limit=4").ends, store)
    prompts = store.scan(tables["prompts"].ref).group_by("split").len().collect()
    assert dict(prompts.rows()) == {"train": 4, "valid": 4}
    assert tables["prompts"].dropped_by == {"limit": 16}


@pytest.mark.parametrize("system", ["savacu", "misaligntrade"])
def test_a_released_table_of_another_system_is_trained_on(system: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    policy = f"{{engine: transformers, model: {save_tiny_llama(tmp_path / 'tiny')}, device: cpu, threads: 1}}"
    settings = [
        f"source={{published: {system}/publish, limit: 5}}",
        f"models={{policy: {policy}, encoder: {{engine: scripted, model: e}}}}",
        "train={max_steps: 2, learning_rate: 0.01}",
        "evaluate.sampling={max_tokens: 8}",
    ]
    with pytest.raises(ConfigError, match=f"{system}/publish is not in this store; build it first: normloom build"):
        stages_for("persodpo", profile="local", assignments=settings, store=store)
    small = ("classify.route=exhaustive", "source.limit=16", "rounds=0")
    made(system, prepared(system, store, *small).ends, store)
    ends = stages_for("persodpo", profile="local", assignments=settings, store=store).ends
    names = {stage.name for stage in stages_of(*ends)}
    assert f"{system}_publish" in names
    assert "parsed" not in names  # nothing is drawn or scored for the pairs
    tables = made("persodpo", ends, store)
    pairs = store.scan(tables["publish"].ref).collect()
    assert pairs.height > 0
    assert set(pairs["method"]) == {"published"}
    assert pairs["margin"].null_count() == pairs.height
    curve = store.scan(tables["train"].ref).collect()
    assert curve["step"].to_list() == [1, 2]
    assert tables["train"].rows_in - tables["train"].count("dropped") == pairs.filter(split="train").height
    answers = store.scan(tables["answers"].ref).group_by("policy").len().collect()
    assert set(answers.rows()) == {("base", 5), ("persodpo", 5)}  # of the built-in validation prompts
    assert tables["evaluation_figures"].count("rows") > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prompt_id,persona\np,I like tea.\n", "has no column 'context'"),
        (
            "prompt_id,persona,context\np,,Hello\n",
            r"its only record cannot be used \(empty; record 1: column 'persona'",
        ),
    ],
)
def test_prompts_that_cannot_be_used_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "prompts.csv").write_text(content)
    store = Store(tmp_path / "store")
    ready = prepared("persodpo", store, f"source.path={tmp_path / 'prompts.csv'}")
    with pytest.raises(SourceError, match=message):
        made("persodpo", ready.ends, store)


def test_a_training_prompt_that_is_held_out_too_leaks(tmp_path: Path) -> None:
    said = "I like tea.,User1: What now?"
    (tmp_path / "prompts.csv").write_text(
        f"prompt_id,split,persona,context\na,train,{said}\nb,valid,{said}\nc,train,I like cake.,User1: What?\n"
        "c,train,I like pie.,User1: What?\nd,test,I like pie.,User1: What?\n"
    )
    store = Store(tmp_path / "store")
    ready = prepared("persodpo", store, f"source.path={tmp_path / 'prompts.csv'}")
    prompts = stages_of(*ready.ends)[0]
    tables = made("persodpo", [prompts], store, quarantine_budget=1)
    assert tables["prompts"].dropped_by == {"leak": 1}
    assert tables["prompts"].quarantined_by == {"repeated_id": 1, "unknown_split": 1}


def test_a_replay_without_a_file_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds is replies, but no file is given: name it with --source"):
        stages_for("persodpo", profile="replay", assignments=[], store=Store(tmp_path))


def test_pairs_of_a_table_and_of_a_file_are_refused(tmp_path: Path) -> None:
    both = ["source.published=savacu/publish", "source.path=replies.csv"]
    with pytest.raises(ConfigError, match="published and path both name a source: set one of them"):
        stages_for("persodpo", profile="replay", assignments=both, store=Store(tmp_path))


CHANGED = (
    "source.max_chars=100",
    "reply.replies=2",
    "reply.context_turns=1",
    "reply.sampling={max_tokens: 7}",
    "signals.near=0.4",
    "quality.bonus_tested_on=raw",
    "quality.bonus=0.1",
    "quality.failures=left_out",
    "quality.length_scaled=min_max",
    "quality.weights={coherence: 0.24, length_format: 0.22}",
    "pairs.upper=0.7",
    "pairs.lower=0.3",
    "pairs.weight=none",
    "pairs.held_out=0.2",
    "pairs.seed=7",
)


def keyed(stages: list[Stage]) -> dict[str, object]:
    return {stage.name: (stage.arguments.model_dump_json(), stage.values) for stage in stages}


@pytest.mark.parametrize("setting", CHANGED)
def test_every_setting_is_read_by_a_stage(setting: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = keyed(stages_of(*prepared("persodpo", store).ends))
    after = keyed(stages_of(*prepared("persodpo", store, setting).ends))
    assert before != after


def test_every_setting_of_its_own_is_walked() -> None:
    sections: dict[str, type[BaseModel]] = {
        "reply": Replying,
        "signals": Measuring,
        "quality": QualitySettings,
        "pairs": Pairing,
    }
    declared = {f"{name}.{field}" for name, kind in sections.items() for field in kind.model_fields}
    elsewhere = {f"{name}.part_rows" for name in ("reply", "signals")} | {"signals.by", "reply.template"}
    assert declared - elsewhere == {setting.partition("=")[0] for setting in CHANGED} - {"source.max_chars"}


def test_a_policy_needs_what_trains_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(ConfigError, match=r"with trl, not installed here: pip install 'normloom\[train\]', or --set "):
        prepared("persodpo", Store(tmp_path), "models.policy={engine: transformers, model: m}")
