"""AlignX to its end: experts of a two-layer policy, the router over them, and all systems side by side."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from in_process import prepared
from upper_bounds import bounded, require_within

import normloom as nl
from normloom.core.errors import ConfigError, SourceError, StageError
from normloom.core.table import Manifest
from normloom.lineage.trace import trace
from normloom.models.routing.calibrators import FILE as TEMPERATURES
from normloom.models.routing.router import FILE as WEIGHTS
from normloom.planning.plan import plan
from normloom.settings.settings import stages_for
from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.tasks.tuning.lora import ADAPTER, CONFIG
from normloom.testing import made
from normloom.workers.resources import Resources

AXES = ["harmless", "helpful", "honest"]
EXPERTS = [f"expert_{axis}" for axis in AXES]
SYSTEMS = ["base", *(f"expert:{axis}" for axis in AXES), "merged", "uniform", "routed", "calibrated"]
SHORT = (
    (
        "tune={batch: 4, accumulate: 1, max_steps: 10, learning_rate: 0.02, warmup_steps: 0, max_tokens: 500, "
        "lora: {rank: 4, alpha: 16}}"
    ),
    "answers={per_axis: 3, sampling: {temperature: 0, max_tokens: 24}}",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def tables(policy: str, store: Store) -> dict[str, Manifest]:
    return made("alignx", prepared("alignx", store, policy, *SHORT).ends, store)


def rows_of(store: Store, table: Manifest) -> pl.DataFrame:
    return store.scan(table.ref).collect()


def test_each_axis_has_an_expert_that_learned(tables: dict[str, Manifest], store: Store) -> None:
    for name in EXPERTS:
        assert set(tables[name].attached) == {ADAPTER, CONFIG}
        curve = rows_of(store, tables[name])
        assert curve["step"].to_list() == list(range(11))
        assert curve["held_out_loss"].drop_nulls().len() == 2
        assert {"other_axis", "held_out"} <= tables[name].dropped_by.keys()
    assert set(tables["router"].attached) == {WEIGHTS}
    assert set(tables["calibrators"].attached) == {TEMPERATURES}


def test_all_systems_answer_the_same_test_prompts(tables: dict[str, Manifest], store: Store) -> None:
    prompts = rows_of(store, tables["asked"])
    test = rows_of(store, tables["axis_rows"]).filter(split="test")
    assert set(prompts["prompt_id"]) <= set(test["row_id"])
    assert prompts.group_by("axis").len().sort("axis").rows() == [(axis, 3) for axis in AXES]
    for system in SYSTEMS:
        replies = rows_of(store, tables[f"replies_{system.replace(':', '_')}"])
        assert replies["system"].unique().to_list() == [system]
        assert sorted(replies["prompt_id"]) == sorted(prompts["prompt_id"])


def test_checks_pass_but_for_states_that_mean_nothing(tables: dict[str, Manifest], store: Store) -> None:
    found = rows_of(store, tables["expert_checks"])
    assert found.filter(~pl.col("passed")).select("check", "of", "found").rows() == []
    assert set(found["check"]) == {"C4", "C5", "held out"}
    routing = rows_of(store, tables["routing_checks"])
    assert set(routing.filter(~pl.col("passed"))["check"]) <= {"probe"}  # a scripted encoder knows no axes
    assert {"C1", "C4", "C9", "C12", "probe", "calibration"} == set(routing["check"])


def test_every_axis_is_figured_before_any_average(tables: dict[str, Manifest], store: Store) -> None:
    figures = rows_of(store, tables["axis_figures"])
    by_axis = figures.filter(slice_by="axis")
    assert set(by_axis["of"]) == set(SYSTEMS)
    assert set(by_axis["slice"]) == set(AXES)
    assert figures["slice_by"].unique(maintain_order=True).to_list() == ["axis", "overall"]
    apart = rows_of(store, tables["conflict"])
    assert tables["judged_nearest"].count("rows") == len(SYSTEMS) * 9
    assert tables["judged_j1"].count("rows") == len(SYSTEMS) * 3  # the profile compares one axis
    assert {"axis_correlation", "one_up_other_down"} <= set(apart["metric"])
    calibration = rows_of(store, tables["calibration_figures"])
    changed = calibration.filter(metric="ece_change", slice="dev")
    assert set(changed["of"]) == {"global", "local"}
    assert (changed["value"] <= 0).all()
    assert {"temperature", "brier", "ece"} <= set(calibration["metric"])
    assert rows_of(store, tables["reliability"])["rows"].sum() > 0


def test_merged_and_uniform_are_sums_of_the_experts(tables: dict[str, Manifest], store: Store) -> None:
    from safetensors.numpy import load_file

    def change(name: str) -> dict[str, np.ndarray]:
        folder = store.folder(tables[name].ref)
        tensors = load_file(folder / ADAPTER)
        downs = [one for one in tensors if ".lora_A." in one]
        scale = 4.0 if name.startswith("expert") else 1.0
        return {one: scale * tensors[one.replace("lora_A", "lora_B")] @ tensors[one] for one in downs}

    merged, uniform, own = change("merged"), change("uniform"), [change(name) for name in EXPERTS]
    for layer, weights in merged.items():
        assert weights == pytest.approx(sum(one[layer] for one in own), abs=1e-5)
        assert uniform[layer] == pytest.approx(weights / 3, abs=1e-5)


def test_one_base_serves_all_systems(policy: str, store: Store) -> None:
    stages = stages_of(*prepared("alignx", store, policy, *SHORT, "answers.per_axis=2").ends)
    planned = plan(stages, system="alignx", store=store, resources=Resources(actors=1))
    assert next(one.stage.name for one in planned.stages if one.state != "reused") == "asked"
    assert sorted(spec.engine for spec in planned.loads or ()) == ["scripted", "scripted", "transformers"]


def test_a_calibrated_reply_leads_to_experts_router_and_calibrators(tables: dict[str, Manifest], store: Store) -> None:
    row = rows_of(store, tables["replies_calibrated"])["row_id"][0]
    products = {model.product for model in trace(store, row).models}
    assert products == {str(tables[name].ref) for name in (*EXPERTS, "router", "calibrators")}


def test_another_number_of_answers_trains_nothing_again(policy: str, tables: dict[str, Manifest], store: Store) -> None:
    again = made("alignx", prepared("alignx", store, policy, *SHORT, "answers.part_rows=2").ends, store)
    assert all(again[name] == tables[name] for name in (*EXPERTS, "router", "calibrators"))


def test_routing_by_the_base_itself(policy: str, store: Store) -> None:
    """The model that answers makes the states that its router reads, if it is named as the encoder."""
    own = policy.replace("models.policy", "models.encoder")
    settings = (policy, own.replace("threads: 1}", "threads: 1, dtype: float32}"), *SHORT)
    ends = {stage.name: stage for stage in stages_of(*prepared("alignx", store, *settings).ends)}
    tables = made("alignx", [ends["replies_routed"]], store)
    assert rows_of(store, tables["states"])["vector"].list.len().unique().to_list() == [32]
    assert ends["replies_routed"].model.encoder is None  # type: ignore[union-attr]  # it has one
    assert tables["replies_routed"].count("rows") == 9


def test_without_a_policy_there_are_router_and_calibrators(store: Store) -> None:
    names = {stage.name for stage in stages_of(*prepared("alignx", store).ends)}
    assert {"routed", "router", "calibrators", "probe_figures", "routing_checks"} <= names
    assert names.isdisjoint({*EXPERTS, "asked", "replies_base", "expert_checks"})


def test_what_cannot_be_tuned_or_routed_is_refused(policy: str, store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"models\.policy: engine scripted cannot be trained; use transformers"):
        prepared("alignx", store, "models.policy={engine: scripted, model: m}")
    with pytest.raises(ConfigError, match=r"models\.policy: an expert is tuned on one GPU, gpus is 2"):
        prepared("alignx", store, policy.replace("threads: 1", "gpus: 2"))
    with pytest.raises(ConfigError, match=r"models\.served: it answers with what models\.policy learns"):
        prepared("alignx", store, "models.served={engine: vllm, model: m}")
    served = "models.served={engine: openvino, model: SmolLM2-135M-Instruct}"
    stages = stages_of(*prepared("alignx", store, policy, served).ends)
    with pytest.raises(ConfigError, match="engine 'openvino' can"):
        plan(stages, system="alignx", store=store, resources=Resources(actors=0))
    with pytest.raises(StageError, match="the rows have the axes harmless, helpful, honest; the settings name a, b"):
        made("alignx", prepared("alignx", store, "axes=[a, b]").ends, store)
    mine = tmp_path / "mine.csv"
    mine.write_text("axis,prompt\na,One?\nb,Two?\n")
    with pytest.raises(SourceError, match="axis 'a': none of its 1 prompts is in the split"):
        made("alignx", prepared("alignx", store, f"source.path={mine}", "axes=[a, b]").ends, store)


def test_a_released_table_brings_its_dimensions_as_axes(tmp_path: Path) -> None:
    own = Store(tmp_path)
    table = "source.table=savacu/publish"
    with pytest.raises(ConfigError, match=r"source\.table: savacu/publish is not published in this store"):
        prepared("alignx", own, table)
    released = pl.DataFrame(
        [
            {
                "prompt_id": str(number),
                "prompt": f"Prompt {number}",
                "response": f"Reply {kind} {number}",
                "alignment": kind,
                "split": ("train", "validation", "test")[number % 3],
                **{
                    name: ["label"] if number % 2 or name != "value" else [] for name in ("safety", "value", "cultural")
                },
            }
            for number in range(18)
            for kind in ("aligned", "misaligned")
        ]
    )
    published = made("savacu", [nl.table(released, name="publish")], own)["publish"]
    tables = made("alignx", prepared("alignx", own, table).ends, own)
    rows = rows_of(own, tables["axis_rows"])
    assert set(rows["axis"]) == {"safety", "value", "cultural"}
    assert list(tables["axis_set_published"].inputs) == [published.ref]
    assert rows["reference"].list.len().sum() > 0
    assert rows_of(own, tables["routed"])["probabilities"].list.len().unique().to_list() == [3]


def test_our_own_prompts_by_the_embedded_encoder(tmp_path: Path) -> None:
    """What a laptop must find: states that tell axes apart, a router that chooses, calibration that does no harm."""
    own = Store(tmp_path)
    tables = made(
        "alignx", stages_for("alignx", profile="local", assignments=["models.policy=null"], store=own).ends, own
    )
    checks = rows_of(own, tables["routing_checks"])
    assert checks.filter(~pl.col("passed")).select("check", "of", "found").rows() == []
    probe = {row["metric"]: row for row in rows_of(own, tables["probe_figures"]).iter_rows(named=True)}
    assert probe["probe_accuracy"]["low"] > probe["probe_chance"]["value"] == pytest.approx(1 / 3)
    calibration = rows_of(own, tables["calibration_figures"])
    for of in ("global", "local"):
        changed = calibration.filter(metric="ece_change", of=of, slice="test").row(0, named=True)
        assert changed["low"] <= changed["value"] <= changed["high"]
        assert changed["low"] <= 0  # never a finding that it does harm


@pytest.mark.parametrize("by", ["scored", "written"])
def test_judges_ask_no_more_than_is_said_before(
    tables: dict[str, Manifest], policy: str, store: Store, by: str
) -> None:
    assert tables
    judge = "{engine: scripted, model: hosted, options: {price_in: 1.0, price_out: 2.0, words: 2}}"
    found = prepared("alignx", store, policy, *SHORT, f"models.judges={{hosted: {judge}}}", f"compare.by={by}")
    _, most = bounded("alignx", found, store)
    asked = [stage for stage in stages_of(*found.ends) if stage.name == "compare_hosted"]
    manifests = made("alignx", asked, store)
    compared = manifests["compare_hosted"]
    require_within({"compare_hosted": compared}, most)
    assert compared.work
    assert 0 < compared.work.usage["requests"] <= most["compare_hosted"].requests


def test_what_is_asked_of_models_that_are_to_be_trained_is_bounded_too(policy: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    planned, most = bounded("alignx", prepared("alignx", store, policy, *SHORT), store)
    asking = [one.stage.name for one in planned if one.stage.name.startswith(("replies_", "compare_"))]
    assert len(asking) == len(SYSTEMS) + 1
    assert all(most[name].known for name in asking)
    assert most["replies_routed"] == most["replies_base"]
    assert most["compare_j1"].requests == 2 * len(SYSTEMS) * most["replies_base"].size.rows


def test_a_policy_needs_what_trains_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(ConfigError, match=r"with trl, not installed here: pip install 'normloom\[train\]', or --set "):
        prepared("alignx", Store(tmp_path), "models.policy={engine: transformers, model: m}")
