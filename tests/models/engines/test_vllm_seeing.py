"""Images in requests to vLLM: the tiny vision-language model gives what it gives with transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from media_requests import scoring
from tiny_models import CONTEXT, loaded
from tiny_vision import TILE_TOKENS, picture, save_tiny_vision
from vllm_engine import needs_vllm, spec

from normloom.core.content import Image
from normloom.core.models.protocol import Metered
from normloom.models import GenerateRequest, LanguageModel, Sampling, load_model
from normloom.models.vllm.engine import VllmModel

pytestmark = needs_vllm
PICTURES = [Image.of(picture(seed)) for seed in range(3)]
TOKENS = 5 * TILE_TOKENS


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_vision(tmp_path_factory.mktemp("vision"), heads=1)


@pytest.fixture(scope="module")
def engine(directory: Path) -> Iterator[VllmModel]:
    model = load_model(spec(str(directory)), threads=1)
    assert isinstance(model, VllmModel)
    yield model
    model.close()


@pytest.fixture(scope="module")
def other(directory: Path) -> LanguageModel:
    return loaded(directory)


def test_scores_are_those_of_transformers(engine: VllmModel, other: LanguageModel) -> None:
    asked = [scoring((image, "A text.")) for image in PICTURES]
    asked += [scoring("No image."), scoring((PICTURES[0], "or", PICTURES[1]))]
    for one, of_other in zip(engine.score(asked), other.score(asked), strict=True):
        assert one.error is None
        assert one.tokens_in == of_other.tokens_in
        for line, of_line in zip(one.logprobs, of_other.logprobs, strict=True):
            assert line == pytest.approx(of_line, abs=1e-2)


def test_texts_are_those_of_transformers(engine: VllmModel, other: LanguageModel) -> None:
    asked = [
        GenerateRequest(
            instruction="", prompt=(image, "Write."), seeds=(0,), sampling=Sampling(temperature=0, max_tokens=8)
        )
        for image in PICTURES
    ]
    found, wanted = engine.generate(asked), other.generate(asked)
    assert [one.candidates[0].text for one in found] == [one.candidates[0].text for one in wanted]
    assert [one.tokens_in for one in found] == [one.tokens_in for one in wanted]


def test_tokens_of_images_are_counted(engine: VllmModel) -> None:
    assert isinstance(engine, Metered)
    engine.take_usage()
    [scores] = engine.score([scoring((PICTURES[0], "A text."))])
    assert engine.take_usage()["prompt_tokens"] > 2 * TOKENS  # read for each question
    assert scores.tokens_in > TOKENS


def test_a_row_whose_images_do_not_fit_is_its_own_fault(engine: VllmModel) -> None:
    crowd = tuple(PICTURES[0] for _ in range(CONTEXT // TOKENS))
    too_long, broken, fits = engine.score(
        [scoring((*crowd, "Which?")), scoring((Image.of(b"none"), "What?")), scoring((PICTURES[1], "This?"))]
    )
    assert f"context and {CONTEXT // TOKENS} images with" in str(too_long.error)
    assert "cannot be read" in str(broken.error)
    assert fits.error is None
