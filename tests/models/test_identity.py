from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants
from tiny_models import NO_SYSTEM, save_tiny_llama, tokenizer

from normloom.core.errors import ConfigError, ModelError
from normloom.models import ModelSpec, model_identity
from normloom.models.files.digests import file_digest

FILES = ("weights", "tokenizer", "chat_template", "configuration")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORMLOOM_CACHE", str(tmp_path / "cache"))


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {field for field in before | after if before.get(field) != after.get(field)}


def test_it_names_engine_versions_model_and_files(tmp_path: Path) -> None:
    spec = ModelSpec(model=str(save_tiny_llama(tmp_path / "tiny")), dtype="float32", revision="r1")
    identity = model_identity(spec)
    assert identity["model"] == spec.model
    assert (identity["dtype"], identity["revision"]) == ("float32", "r1")
    assert {"engine", "torch", "transformers", *FILES} <= set(identity)
    assert all(isinstance(value, str) and (value or field == "revision") for field, value in identity.items())


def test_each_change_shows_in_its_own_field(tmp_path: Path) -> None:
    directory = save_tiny_llama(tmp_path / "tiny")
    spec = ModelSpec(model=str(directory))
    before = model_identity(spec)
    assert model_identity(spec) == before

    tokenizer(NO_SYSTEM).save_pretrained(directory)
    templated = model_identity(spec)
    assert changed(before, templated) == {"chat_template"}

    config = directory / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    configured = model_identity(spec)
    assert changed(templated, configured) == {"configuration"}

    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert changed(configured, model_identity(spec)) == {"weights"}

    optioned = spec.model_copy(update={"options": {"score_batch": 2}, "dtype": "bfloat16"})
    assert changed(model_identity(spec), model_identity(optioned)) == {"options", "dtype"}


def test_a_digest_is_remembered_and_a_damaged_memory_is_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"first")
    first = file_digest(file)
    state = file.stat()
    file.write_bytes(b"other")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file_digest(file) == first  # same size and time: not read again
    (tmp_path / "cache" / "digests.json").write_text("[torn")
    assert file_digest(file) != first


def test_an_export_is_its_graph_and_its_weights(tmp_path: Path) -> None:
    directory = save_tiny_llama(tmp_path / "tiny")
    spec = ModelSpec(engine="openvino", model=str(directory))
    (directory / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \*\.safetensors file"):
        model_identity(spec)
    for name in ("openvino_model.xml", "openvino_model.bin"):
        (directory / name).write_text("one")
    before = model_identity(spec)
    (directory / "openvino_model.bin").write_text("other")
    assert changed(before, model_identity(spec)) == {"weights"}


def test_no_torch_is_imported(tmp_path: Path) -> None:
    spec = ModelSpec(model=str(save_tiny_llama(tmp_path / "tiny")))
    code = (
        "import sys; from normloom.models import ModelSpec, model_identity; "
        f"model_identity(ModelSpec(model={spec.model!r})); "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_scripted_model_has_no_files() -> None:
    identity = model_identity(ModelSpec(engine="scripted", model="toy", options={"yes_rate": 0.2}))
    assert not set(FILES) & set(identity)
    assert identity["options"] == '{"yes_rate": 0.2}'


def test_an_endpoint_is_its_address_and_what_is_asked_of_it_not_how_fast() -> None:
    def identity(**options: object) -> dict[str, str]:
        return model_identity(ModelSpec(engine="openai", model="m", options=options))

    plain = identity()
    assert not set(FILES) & set(plain)
    assert identity(concurrency=64, key_variable="OTHER", price_in=3, timeout_s=1, retries=0) == plain
    assert identity(base_url="https://api.openai.com/v1", system_role=True) == plain  # the defaults
    other = identity(base_url="http://127.0.0.1:8000/v1/", omit=["seed"])
    assert changed(plain, other) == {"options"}
    assert other["options"] == '{"base_url": "http://127.0.0.1:8000/v1", "omit": ["seed"]}'


def test_the_room_that_vllm_takes_is_no_part_of_its_identity(tmp_path: Path) -> None:
    directory = save_tiny_llama(tmp_path / "tiny")

    def identity(**options: object) -> dict[str, str]:
        return model_identity(ModelSpec(engine="vllm", model=str(directory), options=options))

    assert identity(gpu_memory_utilization=0.4, kv_cache_gib=1, sleep=True) == identity()
    assert changed(identity(), identity(max_num_seqs=8)) == {"options"}


def test_an_endpoint_is_identified_without_its_library() -> None:
    code = (
        "import sys; from normloom.models import ModelSpec, model_identity; "
        "model_identity(ModelSpec(engine='openai', model='m')); "
        "print([name for name in ('openai', 'httpx2', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_model_of_the_hub_is_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="model 'nobody/no-such-model' at revision 'v1' cannot be fetched"):
        model_identity(ModelSpec(model="nobody/no-such-model", revision="v1"))


def test_what_cannot_be_identified_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown engine 'x'"):
        model_identity(ModelSpec(engine="x", model="m"))
    with pytest.raises(ModelError, match=r"no \*.safetensors file"):
        model_identity(ModelSpec(model=str(tmp_path)))
    with pytest.raises(ConfigError, match=r"no_such: .*Known options: base_url"):
        model_identity(ModelSpec(engine="openai", model="m", options={"no_such": 1}))
