"""PersoDPO to its end: a two-layer policy trained on the pairs, and measured on prompts that it has not seen."""

from __future__ import annotations

import pytest
from in_process import prepared

from normloom.core.errors import ConfigError
from normloom.core.models.needs import Needs
from normloom.core.table import Manifest
from normloom.lineage.trace import trace
from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.tasks.tuning.lora import ADAPTER, CONFIG
from normloom.testing import made
from normloom.workers.resources import Resources

SHORT = (
    "train={batch: 4, accumulate: 1, max_steps: 6, learning_rate: 0.01, warmup_steps: 0}",
    "evaluate.sampling={max_tokens: 8}",
    "reply.replies=1",
    "pairs.held_out=0.5",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def tables(policy: str, store: Store) -> dict[str, Manifest]:
    return made("persodpo", prepared("persodpo", store, policy, *SHORT).ends, store)


def test_a_policy_is_trained_on_the_pairs_and_one_on_the_simple_ones(tables: dict[str, Manifest], store: Store) -> None:
    for name, pairs in (("train", "pairs"), ("train_simple", "simple_pairs")):
        assert set(tables[name].attached) == {ADAPTER, CONFIG}
        assert store.scan(tables[name].ref).collect()["step"].to_list() == [1, 2, 3, 4, 5, 6]
        assert tables[pairs].ref in tables[name].inputs
        assert {"held_out"} <= tables[name].dropped_by.keys() <= {"held_out", "too_long"}


def test_what_the_untrained_policy_read_is_where_training_starts(tables: dict[str, Manifest], store: Store) -> None:
    losses = store.scan(tables["train"].ref).collect()["unweighted_loss"]
    assert losses[0] == pytest.approx(0.693147, abs=1e-4)
    assert losses[-1] < losses[0]


def test_policies_are_compared_on_held_out_pairs(tables: dict[str, Manifest], store: Store) -> None:
    rows = store.scan(tables["dpo_figures"].ref).collect()
    found = {(row["metric"], row["of"]): row for row in rows.iter_rows(named=True)}
    for name in ("persodpo", "simple"):
        assert found["reward_accuracy", name]["rows"] == tables[f"log_probs_{name}"].count("rows") > 0
        assert 0 <= found["reward_accuracy", name]["value"] <= 1
        assert found["dpo_loss", name]["low"] < found["dpo_loss", name]["high"]
    assert found["dpo_loss_change", "simple"]["axis"] == "persodpo"


def test_training_is_checked(tables: dict[str, Manifest], store: Store) -> None:
    checks = store.scan(tables["training_checks"].ref).collect()
    assert checks.select("check", "of", "passed").rows() == [
        ("C4", "quality", True),
        ("C4", "simple", True),
        ("C5", "adapters", True),
    ]


def test_each_policy_answers_the_validation_prompts(tables: dict[str, Manifest], store: Store) -> None:
    answers = store.scan(tables["answers"].ref).collect()
    assert answers.group_by("policy").len().sort("policy").rows() == [("base", 6), ("persodpo", 6), ("simple", 6)]
    assert answers["seconds"].null_count() == 0
    figures = store.scan(tables["evaluation_figures"].ref).collect().filter(metric="seconds")
    assert dict(figures.select("of", "rows").rows()) == {"base": 6, "persodpo": 6, "simple": 6}
    assert figures["value"].min() > 0  # type: ignore[operator]  # a number


def test_an_answer_leads_to_the_pairs_that_its_policy_learned_from(tables: dict[str, Manifest], store: Store) -> None:
    row = store.scan(tables["answer_persodpo"].ref).collect()["row_id"][0]
    [model] = trace(store, row).models
    assert model.product == str(tables["train"].ref)
    learned = tables["train"].rows_in - tables["train"].count("dropped")
    assert model.learned_from["persodpo/pairs"] == learned


def test_another_question_of_the_pairs_trains_nothing_again(
    policy: str, tables: dict[str, Manifest], store: Store
) -> None:
    again = made("persodpo", prepared("persodpo", store, policy, *SHORT, "evaluate.part_rows=2").ends, store)
    assert again["train"] == tables["train"]


def test_the_tuned_policy_is_a_model_of_another_system(tables: dict[str, Manifest], store: Store) -> None:
    settings = (
        'models={tuned: {model: "product:persodpo/train", dtype: float32, device: cpu}}',
        "source.limit=3",
        "responder={runs: 1, sampling: {max_tokens: 4}}",
    )
    [respond] = [
        stage for stage in stages_of(*prepared("benchmark", store, *settings).ends) if stage.name == "respond_tuned"
    ]
    answered = made("benchmark", [respond], store)["respond_tuned"]
    assert tables["train"].ref in answered.sides
    [model] = trace(store, store.scan(answered.ref).collect()["row_id"][0]).models
    assert model.product == str(tables["train"].ref)
    assert set(model.learned_from) == {"persodpo/pairs"}


def test_the_baseline_may_be_left_out(policy: str, store: Store) -> None:
    names = {stage.name for stage in stages_of(*prepared("persodpo", store, policy, "baseline=false").ends)}
    assert {"train", "answer_persodpo", "simple_pairs"} <= names
    assert names.isdisjoint({"train_simple", "log_probs_simple", "answer_simple"})


def test_without_a_policy_nothing_is_trained(store: Store) -> None:
    names = {stage.name for stage in stages_of(*prepared("persodpo", store).ends)}
    assert names.isdisjoint({"train", "log_probs_base", "dpo_figures", "answers"})


def test_a_policy_that_cannot_be_trained_is_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"models\.policy: engine scripted cannot be trained; use transformers"):
        prepared("persodpo", store, "models.policy={engine: scripted, model: m}")
    with pytest.raises(ConfigError, match=r"train\.batch: 3 pairs cannot be shared by 2 GPUs"):
        prepared("persodpo", store, "models.policy={engine: transformers, model: m, gpus: 2}", "train.batch=3")


def test_a_policy_is_trained_on_all_its_gpus_and_read_on_one(policy: str, store: Store) -> None:
    ends = prepared("persodpo", store, policy.replace("threads: 1", "threads: 1, gpus: 2"), *SHORT).ends
    stages = {stage.name: stage for stage in stages_of(*ends)}
    assert stages["train"].needs == Needs(gpus=2, threads=1)
    for name in ("log_probs_base", "log_probs_persodpo", "answer_base", "answer_persodpo"):
        model = stages[name].model
        assert model
        assert Resources(gpus=0).of(model).gpus == 1, name
