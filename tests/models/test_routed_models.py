"""A base with several adapters and a router: what it serves, what it is in keys, plans and pools, and who refuses."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from adapters import NOTHING, Seed, account, adapt, adapt_scripted
from numpy.testing import assert_allclose
from tiny_models import save_tiny_llama

from normloom.core.errors import ConfigError, ModelError
from normloom.core.models.protocol import (
    Completion,
    GenerateRequest,
    LanguageModel,
    ModelSpec,
    Sampling,
    ScoreRequest,
)
from normloom.core.models.routed_model import RoutedSpec
from normloom.core.run import Run
from normloom.core.stage import Output, Stage
from normloom.core.table import Manifest
from normloom.lineage.trace import trace
from normloom.models import load_model, model_identity
from normloom.models.adapters import loaded_for
from normloom.models.routing.calibrators import Calibrators, tempered
from normloom.models.routing.routed import RoutedModel
from normloom.models.routing.router import Router, judged, load_router, save_router
from normloom.planning.plan import plan
from normloom.steps.args import Args
from normloom.steps.graph import held, stages_of
from normloom.steps.products import files_of, routed, with_adapter
from normloom.steps.step import step
from normloom.store.store import Store
from normloom.testing import echo_stage, made, words_stage
from normloom.testing.toy import SCRIPTED, runner
from normloom.workers.resources import Resources

NAMES = ("kind", "true")
WORDS = ("yes", "no", "cats", "the weather", "health")


class Width(Args):
    width: int = 32
    seed: int = 0


@step(makes=NOTHING, files="router")
def route(rows: pl.DataFrame, args: Width, run: Run) -> Output:
    """Leave a router of random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(args.seed)
        shifts = torch.randn(2, args.width)
        router = Router(torch.zeros(args.width), torch.ones(args.width) / 8, shifts / 4, hidden=4)
    save_router(router, NAMES, run.files)
    return account(rows)


@step(makes=NOTHING, files="calibrators")
def cool(rows: pl.DataFrame, args: Width, run: Run) -> Output:
    """Leave calibrators that make every router less sure."""
    drawn = np.random.default_rng(0)
    states = drawn.standard_normal((8, args.width)).astype(np.float32)
    log_probs = np.log(np.tile([[0.99, 0.01]], (8, 1)))
    Calibrators(6.0, states, log_probs, np.array([0, 1] * 4), neighbours=4, strength=1.0).save(run.files)
    return account(rows)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return ModelSpec(model=str(save_tiny_llama(tmp_path_factory.mktemp("base"))), dtype="float32")


def experts(base: ModelSpec, read: Stage) -> dict[str, Stage]:
    if base.engine == "scripted":
        return {name: adapt_scripted(read, Seed(seed=n), name=f"adapt_{name}") for n, name in enumerate(NAMES)}
    return {name: adapt(read, Seed(seed=n), policy=base, name=f"adapt_{name}") for n, name in enumerate(NAMES)}


def flow(base: ModelSpec, width: Width, **given: Any) -> dict[str, Stage]:
    """Return echoes by the base, by each expert and by the routed model."""
    read = words_stage(*WORDS)
    adapters, router = experts(base, read), route(read, width)
    models = {"base": base, **{name: with_adapter(base, product) for name, product in adapters.items()}}
    models["routed"] = routed(base, adapters, router, **given)
    models["calibrated"] = routed(base, adapters, router, calibrators=cool(read, width), **given)
    return {name: replace(echo_stage(read, model=model), name=f"echo_{name}") for name, model in models.items()}


def echoes(stages: dict[str, Stage], store: Store) -> dict[str, tuple[str, ...]]:
    tables = made("toy", list(stages.values()), store)
    return {name: tuple(store.scan(tables[f"echo_{name}"].ref).collect()["echo"]) for name in stages}


def test_requests_are_mixed_by_their_own_weights(tmp_path: Path, base: ModelSpec) -> None:
    store, width = Store(tmp_path), Width()
    stages = flow(base, width)
    texts = echoes(stages, store)
    assert len(set(texts.values())) == 5
    spec = _placed(stages["routed"], store)
    model = load_model(pickle.loads(pickle.dumps(spec)))  # as it travels to an actor
    assert isinstance(model, RoutedModel)
    weights = model.weights(WORDS)
    plain = load_model(base)
    by_hand = judged(load_router(spec.router.path)[0], plain.embed(WORDS))[0]  # type: ignore[union-attr]  # it has one
    assert_allclose(weights, np.exp(by_hand), atol=1e-6)
    assert weights.std(0).min() > 0.01
    soft = load_model(_placed(stages["calibrated"], store))
    assert isinstance(soft, RoutedModel)
    assert_allclose(soft.weights(WORDS), tempered(by_hand, 6.0), atol=1e-6)


def _placed(stage: Stage, store: Store) -> RoutedSpec:
    spec = stage.model
    assert isinstance(spec, RoutedSpec)

    def placed(one: ModelSpec) -> ModelSpec:
        manifest = store.current("toy", one.stage.name)  # type: ignore[attr-defined]  # of a product
        assert manifest
        return one.placed(str(store.folder(manifest.ref)))  # type: ignore[attr-defined, no-any-return]  # as above

    return spec.each(placed)


def test_an_engine_that_cannot_mix_serves_the_likeliest(tmp_path: Path) -> None:
    store, width = Store(tmp_path), Width(width=64, seed=6)
    encoder = ModelSpec(engine="scripted", model="encoder")
    stages = flow(SCRIPTED, width, encoder=encoder)
    texts = echoes(stages, store)
    spec = _placed_with(stages["routed"], store, encoder)
    model = load_model(spec)
    assert isinstance(model, RoutedModel)
    chosen = model.weights(WORDS).argmax(1)
    assert set(chosen) == {0, 1}
    assert texts["routed"] == tuple(texts[NAMES[one]][place] for place, one in enumerate(chosen))
    assert texts["calibrated"] == texts["routed"]  # another temperature has the same likeliest
    asked = GenerateRequest(instruction="", prompt="x", seeds=(1,), sampling=Sampling(max_tokens=2))
    assert len(model.generate([asked] * 3)) == 3
    assert model.generate([]) == []
    judged_ = model.score([ScoreRequest(instruction="", context="x", questions=("?",), answers=("Yes", "No"))] * 2)
    assert [len(scores.logprobs) for scores in judged_] == [1, 1]


def _placed_with(stage: Stage, store: Store, encoder: ModelSpec) -> RoutedSpec:
    assert isinstance(stage.model, RoutedSpec)
    bare = replace(stage, model=stage.model.model_copy(update={"encoder": None}))
    return _placed(bare, store).model_copy(update={"encoder": encoder})


def test_all_share_one_base(tmp_path: Path) -> None:
    stages = stages_of(*flow(SCRIPTED, Width(width=64)).values())
    loom, tables = runner(Store(tmp_path)), dict[str, Manifest]()
    loom.pool.uses = held(stages)
    planned = plan(stages, system="toy", store=loom.store, resources=Resources(actors=0))
    try:
        for stage in stages:
            reads = ([tables[one.name].ref for one in group] for group in (stage.inputs, stage.products))
            tables[stage.name], _ = loom.run(stage, *reads)
        assert dict(loom.pool.loads) == {"toy": 1}
    finally:
        loom.pool.close()
    assert [one.model for one in planned.loads or ()] == ["toy"]
    assert planned["echo_routed"].waits_for == ("words", "adapt_kind", "adapt_true", "route")


def test_the_key_has_all_that_routes(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def key(width: Width, **given: Any) -> str:
        return made("toy", [flow(SCRIPTED, width, **given)["routed"]], store)["echo_routed"].key

    first = key(Width(width=64))
    assert key(Width(width=64)) == first
    assert key(Width(width=64, seed=1)) != first
    assert key(Width(width=64), encoder=SCRIPTED.model_copy(update={"model": "another"})) != first
    calibrated = flow(SCRIPTED, Width(width=64), local=True)["calibrated"].model
    assert calibrated
    assert model_identity(calibrated)["calibrated"] == "by neighbourhood"


def test_a_reply_leads_to_router_and_experts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    tables = made("toy", [flow(SCRIPTED, Width(width=64))["calibrated"]], store)
    row = store.scan(tables["echo_calibrated"].ref).collect()["row_id"][0]
    products = {model.product for model in trace(store, row).models}
    assert products == {str(tables[name].ref) for name in ("adapt_kind", "adapt_true", "route", "cool")}


def test_what_cannot_route_is_refused(tmp_path: Path, base: ModelSpec) -> None:
    read = words_stage(*WORDS)
    made_by, router = experts(base, read), route(read, Width())
    with pytest.raises(ConfigError, match="at least 2 experts, got 1"):
        routed(base, {"kind": made_by["kind"]}, router)
    openvino = base.model_copy(update={"engine": "openvino"})
    with pytest.raises(ConfigError, match="engine 'openvino' can neither mix nor choose adapters by request"):
        model_identity(routed(openvino, made_by, router))
    vllm = base.model_copy(update={"engine": "vllm"})
    with pytest.raises(ConfigError, match=r"engine 'vllm' does not return the states .* name an encoder"):
        model_identity(routed(vllm, made_by, router))
    served = routed(vllm, made_by, router, encoder=ModelSpec(engine="scripted", model="e"))
    assert loaded_for(served).options == {"max_lora_rank": 16}
    with pytest.raises(ConfigError, match="is a product itself"):
        routed(with_adapter(base, made_by["kind"]), made_by, router)
    with pytest.raises(ModelError, match="its product has not been built yet"):
        load_model(routed(base, made_by, router))
    with pytest.raises(ModelError, match="serves no adapters"):
        RoutedModel(Deaf(), routed(base, made_by, router))
    other = {"kind": made_by["kind"], "false": made_by["true"]}
    store = Store(tmp_path)
    stage = replace(echo_stage(read, model=routed(base, other, router)), name="echo")
    with pytest.raises(ModelError, match="its router knows the experts kind, true; given are kind, false"):
        made("toy", [stage], store)
    assert files_of(router).product == "route"


def test_what_makes_no_states_guides_no_router(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stages = flow(SCRIPTED, Width(width=64))
    echoes(stages, store)
    spec = _placed(stages["routed"], store)
    with pytest.raises(ModelError, match="a Tuned makes no states for a router: name an encoder"):
        RoutedModel(Tuned(), spec).weights(WORDS)
    hosted = ModelSpec(engine="openai", model="m", options={"key_variable": None})
    with pytest.raises(ModelError, match="the encoder of a router makes no states: OpenaiModel"):
        RoutedModel(Tuned(), spec.model_copy(update={"encoder": hosted}))
    unbuilt = stages["routed"].model
    assert isinstance(unbuilt, RoutedSpec)
    with pytest.raises(ModelError, match="model out of 'route': its product has not been built yet"):
        RoutedModel(Tuned(), unbuilt)


class Deaf:
    """A language model that takes no adapters."""

    def score(self, requests: Any) -> list[Any]:
        raise NotImplementedError

    def generate(self, requests: Any) -> list[Completion]:
        raise NotImplementedError


assert isinstance(Deaf(), LanguageModel)


class Tuned(Deaf):
    """A language model that takes adapters and makes no states."""

    def adapted(self, folder: Path) -> LanguageModel:
        raise NotImplementedError


def test_files_that_hold_no_router_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"router.safetensors holds no router"):
        load_router(tmp_path)
    with pytest.raises(ModelError, match=r"calibrators.safetensors holds no calibrators"):
        Calibrators.load(tmp_path)
