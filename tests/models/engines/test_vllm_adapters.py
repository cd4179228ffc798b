"""Adapters on the engine vllm: a tiny model of random weights, and real LoRA adapters that PEFT writes and checks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from adapters import Seed, adapt, save_adapter
from tiny_models import save_tiny_llama
from vllm_engine import ENDED_SECONDS, SLOTS, is_core, needs_vllm, processes_of, spec

from normloom.core.errors import ConfigError, ModelError
from normloom.core.models.model_roles import RolesSpec
from normloom.core.models.product_model import ProductFiles, ProductSpec
from normloom.core.models.protocol import ModelSpec
from normloom.core.models.routed_model import RoutedSpec
from normloom.core.table import Manifest
from normloom.models import GenerateRequest, LanguageModel, Sampling, ScoreRequest, load_model
from normloom.models.adapters import adapted, loaded_for
from normloom.models.roles import Roles
from normloom.models.routing.routed import RoutedModel
from normloom.models.routing.router import Router, save_router
from normloom.models.vllm.engine import VllmModel
from normloom.steps.graph import held, stages_of
from normloom.steps.products import with_adapter
from normloom.store.store import Store
from normloom.testing import echo_stage, words_stage
from normloom.testing.toy import runner
from normloom.workers.resources import Resources

PROMPTS = ("Is it about cats?", "Is the answer about the weather?", "Yes or no?")

pytestmark = needs_vllm


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_llama(tmp_path_factory.mktemp("tiny"), heads=1))


@pytest.fixture(scope="module")
def folders(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    made = [tmp_path_factory.mktemp(f"adapter{seed}") for seed in range(2)]
    for seed, folder in enumerate(made):
        save_adapter(tiny, folder, seed=seed)
    return made


@pytest.fixture(scope="module")
def roles(tiny: str, folders: list[Path]) -> Iterator[Roles]:
    """A base and one of its adapters."""
    model = small(tiny, max_lora_rank=8)
    tuned = with_adapter(model, adapt(words_stage("a"), Seed(), policy=model)).placed(str(folders[0]))
    roles = Roles(RolesSpec.of({"policy": tuned, "reference": model}), threads=1)
    yield roles
    roles.close()


@pytest.fixture(scope="module")
def base(roles: Roles) -> VllmModel:
    model = roles["reference"]
    assert isinstance(model, VllmModel)
    return model


def small(model: str, **options: object) -> ModelSpec:
    return spec(model, kv_cache_gib=0.1, **options)


def written(model: object) -> list[str]:
    assert isinstance(model, LanguageModel)
    asked = Sampling(temperature=0, max_tokens=8)
    requests = [GenerateRequest(instruction="", prompt=prompt, seeds=(1,), sampling=asked) for prompt in PROMPTS]
    return [answer.candidates[0].text for answer in model.generate(requests)]


def scored(model: LanguageModel) -> list[float]:
    requests = [ScoreRequest(instruction="", context=one, questions=("?",), answers=("Yes", "No")) for one in PROMPTS]
    return [value for answer in model.score(requests) for pair in answer.logprobs for value in pair]


def by_transformers(tiny: str, folder: Path | None) -> LanguageModel:
    """Return the model with an adapter as PEFT applies it."""
    plain = ModelSpec(model=tiny, dtype="float32", device="cpu")
    tuned = with_adapter(plain, adapt(words_stage("a"), Seed(), policy=plain))
    model = load_model(tuned.placed(str(folder)) if folder else plain)
    assert isinstance(model, LanguageModel)
    return model


def test_base_and_adapters_share_an_engine_and_answer_as_with_peft(
    tiny: str, folders: list[Path], base: VllmModel
) -> None:
    for folder in (None, *folders, None, folders[0]):
        model = adapted(base, str(folder)) if folder else base
        reference = by_transformers(tiny, folder)
        assert written(model) == written(reference)
        assert scored(model) == pytest.approx(scored(reference), abs=1e-4)
    assert len({tuple(written(model)) for model in (base, *(base.adapted(folder) for folder in folders))}) == 3


def test_what_an_adapter_takes_is_counted_once(folders: list[Path], base: VllmModel) -> None:
    base.take_usage()
    written(base.adapted(folders[0]))
    assert base.adapted(folders[1]).take_usage()["prompt_tokens"] > 0
    assert "prompt_tokens" not in base.take_usage()


def test_an_adapter_that_cannot_be_served_is_said(tiny: str, tmp_path: Path, base: VllmModel) -> None:
    save_adapter(tiny, tmp_path / "large", rank=16)
    with pytest.raises(ConfigError, match=r"has rank 16, .* up to rank 8: set options.max_lora_rank of the model"):
        base.adapted(tmp_path / "large")
    save_adapter(tiny, tmp_path / "dora", use_dora=True)
    with pytest.raises(ModelError, match=r"vLLM cannot load the adapter .*DoRA"):
        base.adapted(tmp_path / "dora")
    assert written(base)


def test_an_actor_loads_a_base_once_for_stages_with_it_and_its_adapters_and_leaves_no_process(
    tiny: str, tmp_path: Path
) -> None:
    before = processes_of(os.getpid())
    words, model = words_stage(*(f"word {number}" for number in range(24))), small(tiny)
    tuned = [with_adapter(model, adapt(words, Seed(seed=seed), policy=model, name=f"adapt_{seed}")) for seed in (0, 1)]
    echoes = [replace(echo_stage(words, model=one), name=f"echo_{n}") for n, one in enumerate((*tuned, model))]
    made: dict[str, Manifest] = {}
    stages, loom = stages_of(*echoes), runner(Store(tmp_path), resources=Resources(actors=1, threads=1))
    loom.pool.uses = held(stages)
    try:
        for stage in stages:
            reads = [made[upstream.name].ref for upstream in stage.inputs]
            made[stage.name], _ = loom.run(stage, reads, [made[product.name].ref for product in stage.products])
        assert dict(loom.pool.loads) == {tiny: 1}
        started = processes_of(os.getpid(), but=before)
        assert any(is_core(process) for process in started)
    finally:
        loom.pool.close()
    assert psutil.wait_procs(started, ENDED_SECONDS)[1] == []
    tables = [made[f"echo_{n}"] for n in range(3)]
    assert len({tuple(loom.store.scan(table.ref).collect()["echo"]) for table in tables}) == 3
    for table in tables:
        assert (table.count("rows"), table.count("quarantined")) == (24, 0)
        assert table.work
        assert 0 < table.work.usage["slots_used"] <= table.work.usage["slots"]
        assert table.work.usage["slots"] % SLOTS == 0
    assert [table.work.loads for table in tables if table.work] == [1, 0, 0]


def test_a_router_gives_each_request_its_likeliest_adapter(
    folders: list[Path], base: VllmModel, tmp_path: Path
) -> None:
    encoder = ModelSpec(engine="scripted", model="encoder", options={"dimensions": 8})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        router = Router(torch.zeros(8), torch.ones(8), torch.randn(2, 8), hidden=4)
    save_router(router, ("one", "other"), tmp_path)
    files = ProductFiles(model="router", product="router", folder=str(tmp_path))
    experts = {
        name: ProductSpec(engine="vllm", model=base.name, product=name, adapter=True, folder=str(folder))
        for name, folder in zip(("one", "other"), folders, strict=True)
    }
    spec = RoutedSpec(engine="vllm", model=base.name, experts=experts, router=files, encoder=encoder)
    model = RoutedModel(base, spec)
    own = [written(base.adapted(folder)) for folder in folders]
    chosen = model.weights(PROMPTS).argmax(1)
    assert written(model) == [own[one][place] for place, one in enumerate(chosen)]


def test_roles_share_an_engine(tiny: str, folders: list[Path], roles: Roles, base: VllmModel) -> None:
    policy = roles["policy"]
    assert isinstance(policy, VllmModel)
    assert policy._engine is base._engine
    assert written(policy) == written(base.adapted(folders[0])) != written(base)
    model = small(tiny)
    tuned = with_adapter(model, adapt(words_stage("a"), Seed(), policy=model)).placed(str(folders[0]))
    assert loaded_for(tuned) == loaded_for(model, [tuned])
