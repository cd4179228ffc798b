"""Sounds in requests to vLLM: the tiny audio-language model gives what it gives with transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from media_requests import scoring
from tiny_hearing import SECOND_TOKENS, save_tiny_hearing, tone
from tiny_models import CONTEXT, loaded
from vllm_engine import needs_vllm, spec

from normloom.core.content import Sound
from normloom.models import GenerateRequest, LanguageModel, Sampling, load_model
from normloom.models.vllm.engine import VllmModel

pytestmark = needs_vllm
SOUNDS = [Sound.of(tone(pitch)) for pitch in (110.0, 440.0, 1760.0)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_hearing(tmp_path_factory.mktemp("hearing"), heads=1)


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
    asked = [scoring((sound, "A text.")) for sound in SOUNDS]
    asked.append(scoring("No sound."))
    for one, of_other in zip(engine.score(asked), other.score(asked), strict=True):
        assert one.error is None
        assert one.tokens_in == of_other.tokens_in
        for line, of_line in zip(one.logprobs, of_other.logprobs, strict=True):
            assert line == pytest.approx(of_line, abs=1e-2)


def test_texts_are_those_of_transformers(engine: VllmModel, other: LanguageModel) -> None:
    asked = [
        GenerateRequest(
            instruction="", prompt=(sound, "Write."), seeds=(0,), sampling=Sampling(temperature=0, max_tokens=8)
        )
        for sound in SOUNDS
    ]
    found, wanted = engine.generate(asked), other.generate(asked)
    assert [one.candidates[0].text for one in found] == [one.candidates[0].text for one in wanted]
    assert [one.tokens_in for one in found] == [one.tokens_in for one in wanted]


def test_a_row_whose_sounds_do_not_fit_is_its_own_fault(engine: VllmModel) -> None:
    long = Sound.of(tone(220.0, seconds=CONTEXT / SECOND_TOKENS))
    too_long, broken, fits = engine.score(
        [scoring((long, "Which?")), scoring((Sound.of(b"none"), "What?")), scoring((SOUNDS[1], "This?"))]
    )
    assert "context and 1 sound with" in str(too_long.error)
    assert "cannot be read" in str(broken.error)
    assert fits.error is None
