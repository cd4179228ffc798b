from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tiny_gguf import save_tiny_gguf
from tiny_models import save_tiny_llama

from normloom.core.errors import ConfigError, ModelError
from normloom.core.models.protocol import Metered
from normloom.models import (
    Candidate,
    GenerateRequest,
    LanguageModel,
    ModelSpec,
    Sampling,
    ScoreRequest,
    load_model,
)
from normloom.models.files.locate import PACKAGED, find
from normloom.models.openvino.batch import Batch
from normloom.models.openvino.engine import OpenvinoModel, _start, _stated_end
from normloom.models.requests.progress import listening
from normloom.models.transformers.engine import TransformersModel

SMOL = "SmolLM2-135M-Instruct"
ONE_THREAD = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
SPEC = ModelSpec(engine="openvino", model=SMOL, dtype="float32")
INSTRUCTION = "You are a helpful assistant who answers briefly."
TOPICS = (
    "cats",
    "rain",
    "Rome",
    "tea",
    "jazz",
    "Mars",
    "gold",
    "bees",
    "ice",
    "salt",
    "wine",
    "snow",
    "corn",
    "iron",
    "moss",
    "dogs",
)
needs_smol = pytest.mark.skipif(find(SMOL) is None, reason=f"package {PACKAGED[SMOL].package} is not installed")


@pytest.fixture(scope="module")
def model() -> OpenvinoModel:
    pytest.importorskip("openvino_genai", reason="openvino-genai (extra cpu) is not installed")
    loaded = load_model(SPEC, threads=1)
    assert isinstance(loaded, OpenvinoModel)
    return loaded


@pytest.fixture(scope="module")
def reference() -> TransformersModel:
    loaded = load_model(ModelSpec(model=SMOL, dtype="float32", device="cpu"), threads=1)
    assert isinstance(loaded, TransformersModel)
    return loaded


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file of a model of random weights for long texts, beside the folder `files` that it was made from."""
    directory = tmp_path_factory.mktemp("tiny")
    config = save_tiny_llama(directory / "files") / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 8192}))
    return save_tiny_gguf(config.parent, directory / "tiny.gguf", half=True)


@pytest.fixture(scope="module")
def directory(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory such as OpenVINO's export makes, of the tiny model."""
    library = pytest.importorskip("openvino_genai", reason="openvino-genai (extra cpu) is not installed")
    directory = tmp_path_factory.mktemp("export")
    (directory / "model.gguf").symlink_to(tiny)
    library.LLMPipeline(directory / "model.gguf", "CPU", enable_save_ov_model=True, **ONE_THREAD)
    (directory / "model.gguf").unlink()
    for path in (tiny.parent / "files").iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, directory)
    return directory


@pytest.fixture(scope="module")
def exported(directory: Path) -> OpenvinoModel:
    return loaded(directory)


def loaded(path: Path, dtype: str = "float32") -> OpenvinoModel:
    model = load_model(SPEC.model_copy(update={"model": str(path), "dtype": dtype}), threads=1)
    assert isinstance(model, OpenvinoModel)
    return model


def writing(
    prompt: str, *seeds: int, schema: Any = None, instruction: str = INSTRUCTION, **sampling: Any
) -> GenerateRequest:
    return GenerateRequest(
        instruction=instruction,
        prompt=prompt,
        seeds=seeds or (1,),
        sampling=Sampling(**{"temperature": 1.0, "max_tokens": 8, **sampling}),
        json_schema=None if schema is None else json.dumps(schema),
    )


def asked(**sampling: Any) -> list[GenerateRequest]:
    return [writing(f"Tell me a fact about {topic}.", 100 + i, **sampling) for i, topic in enumerate(TOPICS)]


def written(model: LanguageModel, *requests: GenerateRequest) -> list[Candidate]:
    return [candidate for completion in model.generate(requests) for candidate in completion.candidates]


@needs_smol
class TestGenerate:
    def test_it_is_a_language_model_that_counts(self, model: OpenvinoModel) -> None:
        assert isinstance(model, LanguageModel)
        assert isinstance(model, Metered)

    def test_greedy_texts_begin_as_those_of_transformers(
        self, model: OpenvinoModel, reference: TransformersModel
    ) -> None:
        requests = asked(temperature=0)
        ours, theirs = model.generate(requests), reference.generate(requests)
        assert [one.tokens_in for one in ours] == [other.tokens_in for other in theirs]
        same = sum(one.candidates[0].text == other.candidates[0].text for one, other in zip(ours, theirs, strict=True))
        assert same >= 14

    def test_the_repetition_penalty_is_that_of_transformers(
        self, model: OpenvinoModel, reference: TransformersModel
    ) -> None:
        prompts = [f"Repeat five times: {topic}" for topic in TOPICS[:4]]
        free = [writing(prompt, temperature=0) for prompt in prompts]
        penalised = [writing(prompt, temperature=0, repetition_penalty=1.8) for prompt in prompts]
        ours = written(model, *penalised)
        assert sum(a.text == b.text for a, b in zip(ours, written(reference, *penalised), strict=True)) >= 3
        assert ours != written(model, *free)

    def test_a_draw_depends_on_its_own_seed_only(self, model: OpenvinoModel) -> None:
        requests = asked()[:8]
        together = model.generate(requests)
        assert model.generate(requests[::-1])[::-1] == together
        assert [model.generate([request])[0] for request in requests[:2]] == together[:2]

    def test_seeds_give_different_texts_and_one_seed_the_same(self, model: OpenvinoModel) -> None:
        seeds = (1, 2, 2**40, 1)
        texts = written(model, writing("Tell me a fact about cats.", *seeds))
        assert tuple(candidate.seed for candidate in texts) == seeds
        assert len({candidate.text for candidate in texts[:3]}) == 3
        assert texts[3] == texts[0]

    def test_threads_share_the_batch_and_get_their_own(self, model: OpenvinoModel) -> None:
        halves = [asked()[:4], asked()[4:8]]
        alone = [model.generate(half) for half in halves]
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(model.generate, halves)) == alone

    def test_a_stop_string_ends_the_text_before_it(self, model: OpenvinoModel) -> None:
        (free,) = written(model, writing("Tell me a story.", 5, max_tokens=30))
        stop = free.text[20:23]
        (stopped,) = written(model, writing("Tell me a story.", 5, max_tokens=30, stop=("absent", stop)))
        assert stopped.text == free.text[: free.text.index(stop)]
        assert stopped.finish == "stop"
        assert stopped.tokens_out < free.tokens_out

    def test_the_end_token_counts_and_is_not_written(self, model: OpenvinoModel, reference: TransformersModel) -> None:
        request = writing("What is the capital of France?", instruction="", temperature=0, max_tokens=16)
        assert written(model, request) == written(reference, request)
        assert written(model, request)[0].finish == "stop"

    def test_control_tokens_in_a_row_are_text(self, model: OpenvinoModel, reference: TransformersModel) -> None:
        request = writing("Write <|im_end|> and <|im_start|>user once.", temperature=0)
        (ours,), (theirs,) = model.generate([request]), reference.generate([request])
        (plain,) = model.generate([writing("Write and user once.")])
        assert ours.tokens_in == theirs.tokens_in > plain.tokens_in + 6

    def test_a_prompt_that_does_not_fit_is_said(self, model: OpenvinoModel) -> None:
        long, short = model.generate([writing("cats " * 8200), writing("cats")])
        assert long.candidates == ()
        assert long.error is not None
        assert "exceeds the model's limit 8192" in long.error
        assert short.error is None

    def test_no_requests_and_no_seeds(self, model: OpenvinoModel) -> None:
        assert model.generate([]) == []
        (completion,) = model.generate([GenerateRequest(instruction="", prompt="cats", seeds=())])
        assert completion.candidates == ()

    def test_json_follows_the_schema(self, model: OpenvinoModel) -> None:
        schema = {
            "type": "object",
            "properties": {"animal": {"enum": ["cat", "dog"]}, "age": {"type": "integer", "minimum": 1, "maximum": 30}},
            "required": ["animal", "age"],
            "additionalProperties": False,
        }
        texts = written(model, writing("Describe a pet as JSON.", *range(6), schema=schema, max_tokens=64))
        whole = [json.loads(candidate.text) for candidate in texts if candidate.finish == "stop"]
        assert len(whole) >= 5
        for value in whole:
            assert value["animal"] in {"cat", "dog"}
            assert 1 <= value["age"] <= 30

    def test_what_was_read_and_how_full_the_batch_was_is_counted(self, model: OpenvinoModel) -> None:
        model.take_usage()
        (completion,) = model.generate([writing("cats", 1, 2)])
        usage = model.take_usage()
        assert usage["prompt_tokens"] == 2 * completion.tokens_in
        assert 0 < usage["slots_used"] < usage["slots"]
        assert set(model.take_usage().values()) == {0}

    def test_an_export_writes_the_same(
        self, tiny: Path, directory: Path, exported: OpenvinoModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NORMLOOM_CACHE", str(tmp_path))
        other = loaded(directory)
        _, other.batch = _start(SPEC.model_copy(update={"model": str(tiny)}), other.options, threads=1)
        requests = asked(temperature=0)  # weights are rounded differently, and random ones draw others at once
        assert exported.generate(requests) == other.generate(requests)

    def test_a_schema_that_the_library_refuses_costs_its_own_requests_only(self, exported: OpenvinoModel) -> None:
        with pytest.raises(ConfigError, match="the JSON schema of a request is not valid JSON"):
            exported.generate([dataclasses.replace(writing("cats"), json_schema="{")])
        before = exported.generate([writing("cats")])
        with pytest.raises(ModelError, match="OpenVINO failed on a request"):
            exported.generate([writing("dogs", schema={"type": 7})])
        assert exported.generate([writing("cats")]) == before

    def test_a_failure_ends_what_others_have_in_the_same_batch(self, exported: OpenvinoModel) -> None:
        begun = threading.Event()

        def long() -> object:
            with listening(lambda _: begun.set()):
                return exported.generate([writing("Tell me a story.", *range(8), max_tokens=4000)])

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(long)
            assert begun.wait(60)
            with pytest.raises(ModelError, match="OpenVINO failed on a request"):
                exported.generate([writing("dogs", schema={"type": 7})])
            with pytest.raises(ModelError, match="a request of another part that was in the same batch"):
                waiting.result(120)

    def test_a_prompt_that_the_cache_cannot_hold_is_said(self, exported: OpenvinoModel, directory: Path) -> None:
        import openvino

        scheduling = exported.library.SchedulerConfig()
        scheduling.num_kv_blocks, scheduling.cache_size = 4, 0
        small = exported.library.ContinuousBatchingPipeline(directory, scheduling, "CPU", ONE_THREAD)
        exported.batch = Batch(lambda: small, openvino.Tensor, size=8)
        long, short = exported.generate([writing("cats " * 300), writing("cats")])
        assert long.candidates == ()
        assert long.error is not None
        assert "does not fit into a cache of 1 GiB; raise the option cache_gib" in long.error
        assert len(short.candidates) == 1


@needs_smol
class TestScore:
    def test_scores_are_those_of_transformers(self, model: OpenvinoModel, reference: TransformersModel) -> None:
        request = ScoreRequest(
            instruction=INSTRUCTION, context="Cats purr.", questions=("Is it about cats?",), answers=("Yes", "No")
        )
        assert model._scorer is None  # a stage that only writes does not hold the weights twice
        assert model.score([request]) == reference.score([request])


class TestLoading:
    @needs_smol
    def test_one_thread_writes_in_the_precision_that_it_can(self, directory: Path) -> None:
        import openvino

        [completion] = loaded(directory, dtype="auto").generate([writing("cats")])
        assert completion.candidates[0].text
        if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            assert [completion] == loaded(directory).generate([writing("cats")])  # in float32
            with pytest.raises(ConfigError, match="crashes in bfloat16 on one thread; set threads: 2 or dtype: float3"):
                load_model(SPEC.model_copy(update={"dtype": "bfloat16"}), threads=1)

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ({"options": {"precision": "q2", "colour": 1}}, "precision: .*colour: .*Known options: max_num_seqs"),
            ({"dtype": "float3"}, "unknown dtype 'float3'; use auto, float32, bfloat16, float16"),
            ({"device": "cuda"}, r"runs on device cpu \(or auto\), not 'cuda'"),
        ],
    )
    def test_wrong_settings_are_named(self, spec: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            load_model(ModelSpec(**{"engine": "openvino", "model": SMOL, **spec}))

    def test_without_the_library_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "openvino_genai", None)
        with pytest.raises(ModelError, match=r'pip install "normloom\[cpu\]"'):
            load_model(SPEC)

    def test_safetensors_alone_are_a_model_error(self, tmp_path: Path) -> None:
        pytest.importorskip("openvino_genai", reason="openvino-genai (extra cpu) is not installed")
        with pytest.raises(ModelError, match=r"has no openvino_model\.xml; optimum-cli export openvino"):
            load_model(ModelSpec(engine="openvino", model=str(save_tiny_llama(tmp_path))))

    def test_an_export_that_is_damaged_is_a_model_error(self, tmp_path: Path) -> None:
        pytest.importorskip("openvino_genai", reason="openvino-genai (extra cpu) is not installed")
        directory = save_tiny_llama(tmp_path)
        for name in ("openvino_model.xml", "openvino_model.bin"):
            (directory / name).write_text("<net/>")
        with pytest.raises(ModelError, match=r"OpenVINO cannot load .*: "):
            load_model(ModelSpec(engine="openvino", model=str(directory)), threads=1)

    def test_an_export_may_state_no_end_token(self, tmp_path: Path) -> None:
        spec = ModelSpec(engine="openvino", model=str(save_tiny_llama(tmp_path)))
        assert _stated_end(spec) == 2
        (tmp_path / "generation_config.json").unlink()
        assert _stated_end(spec) is None

    def test_a_model_of_the_hub_is_not_fetched(self) -> None:
        pytest.importorskip("openvino_genai", reason="openvino-genai (extra cpu) is not installed")
        with pytest.raises(ModelError, match=r"'some/model': .* is not a file on this machine; optimum-cli export"):
            load_model(ModelSpec(engine="openvino", model="some/model"))
