from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from normloom.core.errors import ModelError
from normloom.models import Embedder, ModelSpec, load_model
from normloom.models.files.locate import PACKAGED, find
from normloom.models.transformers.embedding import SentenceEmbedder

MINILM = "all-MiniLM-L6-v2"
SPEC = ModelSpec(engine="embedding", model=MINILM, device="cpu")
TEXTS = ["How do I bake bread?", "A recipe for a loaf of bread", "The court ruled on the appeal", "", "word " * 1000]

pytestmark = pytest.mark.skipif(find(MINILM) is None, reason=f"package {PACKAGED[MINILM].package} is not installed")


@pytest.fixture(scope="module")
def embedder() -> SentenceEmbedder:
    model = load_model(SPEC, threads=1)
    assert isinstance(model, SentenceEmbedder)
    return model


def test_it_is_an_embedder(embedder: SentenceEmbedder) -> None:
    assert isinstance(embedder, Embedder)


def test_vectors_are_unit_float32_rows_in_order(embedder: SentenceEmbedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimensions)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(embedder.embed(TEXTS[::-1])[::-1], vectors, atol=1e-5)


def test_texts_alike_in_meaning_are_near(embedder: SentenceEmbedder) -> None:
    bread, recipe, court = embedder.embed(TEXTS[:3])
    assert bread @ recipe > 0.5
    assert bread @ court < 0.2


def test_a_vector_is_the_mean_of_its_tokens(embedder: SentenceEmbedder) -> None:
    tokens = AutoTokenizer.from_pretrained(find(MINILM))(TEXTS[0], return_tensors="pt")
    with torch.inference_mode():
        mean = AutoModel.from_pretrained(find(MINILM))(**tokens).last_hidden_state[0].mean(0)
    expected = (mean / mean.norm()).numpy()
    np.testing.assert_allclose(embedder.embed(TEXTS)[0], expected, atol=1e-5)


def test_long_texts_are_cut_at_the_tuned_length(embedder: SentenceEmbedder) -> None:
    assert embedder.limit == 256
    cut, longer = embedder.embed(["word " * 254, "word " * 1000])
    np.testing.assert_allclose(cut, longer, atol=1e-5)


def test_no_texts(embedder: SentenceEmbedder) -> None:
    assert embedder.embed([]).shape == (0, embedder.dimensions)


def test_other_pooling_is_refused(tmp_path: Path) -> None:
    source = find(MINILM)
    assert source is not None
    shutil.copytree(source, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "model" / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    with pytest.raises(ModelError, match="does not pool by the mean"):
        load_model(ModelSpec(engine="embedding", model=str(tmp_path / "model")))
