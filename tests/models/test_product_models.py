from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from adapters import NOTHING, Seed, account, adapt, adapt_scripted, write_whole
from tiny_models import save_tiny_llama

from normloom.cli.commands.running.plan import _why
from normloom.cli.output.trace_tree import trained
from normloom.core.content import Image
from normloom.core.errors import ConfigError, ModelError
from normloom.core.models.model_roles import RolesSpec
from normloom.core.models.product_model import ProductFiles
from normloom.core.models.protocol import GenerateRequest, LanguageModel, ModelSpec, Sampling
from normloom.core.run import Run
from normloom.core.stage import Output, Stage, dropped, dropped_frame
from normloom.core.table import Manifest
from normloom.lineage.trace import trace
from normloom.models import load_model, model_identity
from normloom.models.adapters import adapted, loaded_for, served_by
from normloom.models.media.senses import lacks
from normloom.models.product_files import base_of, plain_spec, require_files
from normloom.models.roles import Roles
from normloom.planning.plan import Plan, plan
from normloom.steps.graph import held, stages_of
from normloom.steps.products import model_from, with_adapter
from normloom.steps.step import step
from normloom.store.store import Store
from normloom.testing import echo_stage, made, words_stage
from normloom.testing.toy import SCRIPTED, runner
from normloom.workers.resources import Resources


@step(makes=NOTHING, files="weights")
def write_pickle(rows: pl.DataFrame, run: Run) -> Output:
    """Leave a model of the old format beside a good one."""
    save_tiny_llama(run.files)
    (run.files / "pytorch_model.bin").write_bytes(b"a pickle")
    return account(rows)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return ModelSpec(model=str(save_tiny_llama(tmp_path_factory.mktemp("base"))), dtype="float32")


def echoes(store: Store, stage: Stage) -> list[str]:
    return list(store.scan(made("toy", [stage], store)["echo"].ref).collect()["echo"])


def test_an_adapter_is_served_with_its_base(tmp_path: Path, base: ModelSpec) -> None:
    store, words = Store(tmp_path), words_stage("yes", "no")
    adapter = adapt(words, Seed(), policy=base)
    tuned = echoes(store, echo_stage(words, model=with_adapter(base, adapter)))
    assert tuned != echoes(Store(tmp_path / "other"), echo_stage(words, model=base))
    assert tuned == _merged(store, base, words)


def _merged(store: Store, base: ModelSpec, words: Stage) -> list[str]:
    """Return the echoes of a model with the adapter merged into its weights by PEFT itself."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = store.root / "merged"
    adapter = store.current("toy", "adapt")
    assert adapter
    plain = AutoModelForCausalLM.from_pretrained(base.model)
    PeftModel.from_pretrained(plain, store.folder(adapter.ref)).merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(base.model).save_pretrained(folder)
    return echoes(
        Store(store.root / "by_peft"), echo_stage(words, model=base.model_copy(update={"model": str(folder)}))
    )


def test_whole_weights_are_a_model(tmp_path: Path, base: ModelSpec) -> None:
    words = words_stage("yes", "no")
    whole = model_from(write_whole(words, Seed()), dtype="float32")
    plain = echoes(Store(tmp_path / "plain"), echo_stage(words, model=base))
    assert echoes(Store(tmp_path), echo_stage(words, model=whole)) == plain


def test_the_key_has_the_base_and_the_content_of_the_product(tmp_path: Path, base: ModelSpec) -> None:
    store, words = Store(tmp_path), words_stage("yes")

    def key(seed: int, model: ModelSpec = base) -> str:
        adapter = adapt(words, Seed(seed=seed), policy=base)
        return made("toy", [echo_stage(words, model=with_adapter(model, adapter))], store)["echo"].key

    first = key(0)
    assert key(0) == first
    assert key(1) != first
    assert key(0, base.model_copy(update={"options": {"generate_batch": 2}})) != first
    manifest = store.current("toy", "echo")
    assert manifest
    assert [ref.stage for ref in manifest.sides] == ["adapt"]


def test_a_plan_shows_what_waits_for_a_model_and_counts_its_load(tmp_path: Path, base: ModelSpec) -> None:
    store, words = Store(tmp_path), words_stage("yes")
    made("toy", [words], store)

    def planned(seed: int = 0) -> tuple[list[Stage], Plan]:
        adapter = adapt(words, Seed(seed=seed), policy=base)
        stages = stages_of(echo_stage(words, model=with_adapter(base, adapter)))
        return stages, plan(stages, system="toy", store=store, resources=Resources(actors=0))

    stages, before = planned()
    assert [(one.stage.name, one.state) for one in before.stages] == [
        ("words", "reused"),
        ("adapt", "new"),
        ("echo", "new"),
    ]
    assert before["echo"].waits_for == ("adapt",)
    assert _why(before["echo"]) == "no table yet; waits for the product of adapt"
    assert list(before.loads or ()) == [base]  # which serves the adapter
    made("toy", [stages[-1]], store)
    assert [one.state for one in planned()[1].stages] == ["reused"] * 3
    again = planned(seed=1)[1]
    assert (again["adapt"].state, again["echo"].state) == ("changed", "waiting")
    assert _why(again["echo"]) == "unless adapt is unchanged; waits for the product of adapt"


def echoed_by(words: Stage, *seeds: int | None, model: ModelSpec = SCRIPTED) -> list[Stage]:
    """Return an echo by a scripted model with the adapter of each seed, by itself for None."""

    def by(seed: int | None) -> ModelSpec:
        if seed is None:
            return model
        return with_adapter(model, adapt_scripted(words, Seed(seed=seed), name=f"adapt_{seed}"))

    return [replace(echo_stage(words, model=by(seed)), name=f"echo_{seed}") for seed in seeds]


@pytest.mark.parametrize("actors", [0, 1])
def test_a_base_and_its_adapters_share_what_is_loaded(tmp_path: Path, actors: int) -> None:
    """As the engine allows it: the scripted one here, vLLM in test_vllm_adapters."""
    made: dict[str, Manifest] = {}
    stages = stages_of(*echoed_by(words_stage("yes", "no"), 0, None, 1))
    loom = runner(Store(tmp_path), resources=Resources(actors=actors))
    loom.pool.uses = held(stages)
    planned = plan(stages, system="toy", store=loom.store, resources=Resources(actors=actors))
    try:
        for stage in stages:
            reads = ([made[one.name].ref for one in group] for group in (stage.inputs, stage.products))
            made[stage.name], _ = loom.run(stage, *reads)
        assert dict(loom.pool.loads) == {"toy": 1}
    finally:
        loom.pool.close()
    assert planned.loads is not None
    assert [spec.model for spec in planned.loads] == ["toy"]
    texts = {name: tuple(loom.store.scan(one.ref).collect()["echo"]) for name, one in made.items() if "echo" in name}
    assert len(set(texts.values())) == 3


def test_what_is_loaded_for_base_and_adapter(base: ModelSpec) -> None:
    by_torch = with_adapter(base, adapt_scripted(words_stage("a"), Seed()))
    assert loaded_for(by_torch) == base
    base = ModelSpec(engine="vllm", model="org/base", threads=2)
    tuned = with_adapter(base, adapt_scripted(words_stage("a"), Seed()))
    serving = base.model_copy(update={"options": {"max_lora_rank": 16}})
    assert loaded_for(tuned) == serving
    assert loaded_for(base) == base
    assert loaded_for(base, [tuned]) == serving
    larger = base.model_copy(update={"options": {"max_lora_rank": 64}})
    assert loaded_for(with_adapter(larger, tuned.stage)) == larger
    assert loaded_for(base, [with_adapter(larger, tuned.stage)]) == base
    whole = model_from(tuned.stage, engine="vllm")
    assert loaded_for(whole) == whole


def test_roles_that_share_an_engine_take_its_resources_once() -> None:
    base = ModelSpec(engine="vllm", model="org/base", gpus=1)
    tuned = with_adapter(base, adapt_scripted(words_stage("a"), Seed()))
    other = base.model_copy(update={"model": "org/judge"})
    roles = {"policy": tuned, "reference": base, "judge": other}
    assert Resources(actors=1).of(RolesSpec.of(roles)).gpus == 2


def test_what_cannot_be_a_model_is_refused(tmp_path: Path, base: ModelSpec) -> None:
    words = words_stage("yes")
    with pytest.raises(ConfigError, match="stage 'words' has no files"):
        with_adapter(base, words)
    adapter = adapt(words, Seed(), policy=base)
    openvino = with_adapter(base.model_copy(update={"engine": "openvino"}), adapter)
    with pytest.raises(
        ConfigError, match="engine 'openvino' cannot load the adapter of a product; use transformers or vllm"
    ):
        model_identity(openvino)
    with pytest.raises(ModelError, match="its product has not been built yet"):
        load_model(with_adapter(base, adapter))
    with pytest.raises(ModelError, match=r"pytorch_model.bin may hold a pickle; save safetensors instead"):
        made("toy", [echo_stage(words, model=model_from(write_pickle(words)))], Store(tmp_path))


def test_an_adapter_travels_without_its_stage(tmp_path: Path, base: ModelSpec) -> None:
    import pickle

    words = words_stage("yes")
    adapter = adapt(words, Seed(), policy=base)
    manifest = made("toy", [adapter], Store(tmp_path))["adapt"]
    spec = with_adapter(base, adapter).placed(str(Store(tmp_path).folder(manifest.ref)))
    model = load_model(pickle.loads(pickle.dumps(spec)))
    assert isinstance(model, LanguageModel)
    request = GenerateRequest(instruction="x", prompt="y", seeds=(1,), sampling=Sampling(max_tokens=4))
    assert model.generate([request])[0].candidates


@step(makes=NOTHING, files="adapter")
def adapt_to_some(rows: pl.DataFrame, *, policy: ModelSpec, run: Run) -> Output:
    """Leave an adapter that did not learn from the word `left`."""
    adapt.function(rows, Seed(), policy=policy, run=run)
    out = [dropped(row, "left out") for row in rows.iter_rows(named=True) if row["word"] == "left"]
    made = account(rows)
    return replace(made, dropped=dropped_frame(out), attempts=1 + len(out))


def test_traces_lead_through_training(tmp_path: Path, base: ModelSpec) -> None:
    store, pairs = Store(tmp_path), words_stage("yes", "left", "no")
    tuned = with_adapter(base, adapt_to_some(pairs, policy=base))
    tables = made("toy", [echo_stage(pairs, model=tuned)], store)
    product = str(tables["adapt_to_some"].ref)
    words = dict(store.scan(tables["words"].ref).select("word", "row_id").collect().iter_rows())

    [model] = trace(store, store.scan(tables["echo"].ref).collect()["row_id"][0]).models
    assert (model.product, model.wrote, model.learned_from) == (product, ("toy/echo",), {"toy/words": 2})
    assert model.rows == (words["yes"], words["no"])

    [model] = trace(store, words["yes"], forward=True).models
    assert (model.product, model.wrote, model.rows) == (product, ("toy/echo",), (words["yes"],))
    assert trace(store, words["left"], forward=True).models == ()
    assert "learned from 1 of these rows" in trained(model, forward=True).plain


@step(makes={"word": pl.String, "same": pl.Boolean})
def compare(rows: pl.DataFrame, model: Roles) -> pl.DataFrame:
    def said(role: str) -> list[str]:
        requests = [
            GenerateRequest(instruction="x", prompt=word, seeds=(1,), sampling=Sampling(max_tokens=6))
            for word in rows["word"]
        ]
        return [answer.candidates[0].text for answer in model[role].generate(requests)]  # type: ignore[union-attr]

    same = pl.Series([one == other for one, other in zip(said("policy"), said("reference"), strict=True)])
    return rows.select("row_id", "word", same=same)


def test_several_models_in_a_step_by_role(tmp_path: Path, base: ModelSpec) -> None:
    store, words = Store(tmp_path), words_stage("yes", "no")
    tuned = with_adapter(base, adapt(words, Seed(), policy=base))

    def table(**roles: ModelSpec) -> tuple[str, list[bool]]:
        manifest = made("toy", [compare(words, model=roles)], store)["compare"]
        return manifest.key, store.scan(manifest.ref).collect()["same"].to_list()

    first, same = table(policy=base, reference=base)
    assert same == [True, True]
    other, differ = table(policy=tuned, reference=base)
    assert first != other
    assert not all(differ)
    two = compare(words, model={"policy": tuned, "reference": base.model_copy(update={"threads": 2})})
    assert two.model
    wanted = Resources(actors=1, gpus=1).of(two.model)
    assert (wanted.gpus, wanted.threads) == (2, 2)


def test_a_model_is_loaded_with_its_adapter_by_itself(tmp_path: Path, base: ModelSpec) -> None:
    """As by an engine that does not serve adapters of a base: the two lie in one folder."""
    store, words = Store(tmp_path), words_stage("yes")
    adapter = adapt(words, Seed(), policy=base)
    folder = store.folder(made("toy", [adapter], store)["adapt"].ref)
    spec = with_adapter(base, adapter).placed(str(folder))
    alone: Any = load_model(plain_spec(spec), threads=1)
    loaded: Any = load_model(loaded_for(spec), threads=1)
    bare: Any = load_model(base, threads=1)
    asked = [GenerateRequest(instruction="", prompt="yes", seeds=(0,), sampling=Sampling(temperature=0, max_tokens=6))]
    assert alone.generate(asked) == loaded.adapted(folder).generate(asked) != bare.generate(asked)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("adapter_model.safetensors", None, "adapter_model.safetensors is missing from"),
        ("adapter_config.json", None, "adapter_config.json is missing from"),
        ("adapter_config.json", "{}", "must name base_model_name_or_path"),
    ],
)
def test_files_of_a_product_that_are_no_model_are_named(
    tmp_path: Path, base: ModelSpec, file: str, content: str | None, said: str
) -> None:
    store = Store(tmp_path / "store")
    adapter = adapt(words_stage("yes"), Seed(), policy=base)
    folder = Path(shutil.copytree(store.folder(made("toy", [adapter], store)["adapt"].ref), tmp_path / "copy"))
    (folder / file).chmod(0o644)
    if content is None:
        (folder / file).unlink()
        with pytest.raises(ModelError, match=said):
            require_files(with_adapter(base, adapter).placed(str(folder)))
        return
    (folder / file).write_text(content)
    with pytest.raises(ModelError, match=said):
        base_of(folder)


def test_a_whole_model_without_weights_and_one_that_is_not_built_are_refused(tmp_path: Path) -> None:
    whole = model_from(write_whole(words_stage("yes"), Seed()))
    with pytest.raises(ModelError, match="its product has not been built yet"):
        require_files(whole)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no \*.safetensors in"):
        require_files(whole.placed(str(tmp_path)))
    assert base_of(tmp_path) is None
    with pytest.raises(ModelError, match="its product has not been built yet"):
        served_by(object(), ModelSpec(model="m"))
    with pytest.raises(ValueError, match="the product 'p' has not been built yet"):
        ProductFiles(model="p", product="p").path  # noqa: B018  # it raises
    assert lacks(whole, Image) is None  # nobody knows before it is built
    with pytest.raises(ModelError, match="serves no adapters"):
        adapted(object(), str(tmp_path))
