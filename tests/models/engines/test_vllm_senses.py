"""Images and sounds in requests to vLLM, and processes that hold a model, as actors do.

The tiny models give what they give with transformers. Each is in a process of its own, which ends with the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from media_requests import scoring
from tiny_hearing import NO_SYSTEM, SECOND_TOKENS, save_tiny_hearing, tone
from tiny_models import CONTEXT, loaded
from tiny_vision import TILE_TOKENS, picture, save_tiny_vision
from vllm_engine import ENDED_SECONDS, is_core, needs_vllm, processes_of, spec
from vllm_holder import Held, two_holders

from normloom.core.content import Content, Image, Sound
from normloom.core.errors import EngineDiedError
from normloom.models import Completion, GenerateRequest, LanguageModel, Sampling, ScoreRequest

pytestmark = needs_vllm
PICTURES = [Image.of(picture(seed)) for seed in range(3)]
TOKENS = 5 * TILE_TOKENS
SOUNDS = [Sound.of(tone(pitch)) for pitch in (110.0, 440.0, 1760.0)]


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_vision(tmp_path_factory.mktemp("vision"), heads=1)


@pytest.fixture(scope="module")
def hearing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_hearing(tmp_path_factory.mktemp("hearing"), heads=1, template=NO_SYSTEM)


@pytest.fixture(scope="module")
def holders(vision: Path, hearing: Path) -> Iterator[tuple[Held, Held]]:
    with two_holders(spec(str(vision), kv_cache_gib=0.1), spec(str(hearing), kv_cache_gib=0.1)) as both:
        yield both


@pytest.fixture(scope="module")
def seeing(holders: tuple[Held, Held]) -> Held:
    return holders[0]


@pytest.fixture(scope="module")
def listening(holders: tuple[Held, Held]) -> Held:
    return holders[1]


@pytest.fixture(scope="module")
def other_seeing(vision: Path) -> LanguageModel:
    return loaded(vision)


@pytest.fixture(scope="module")
def other_listening(hearing: Path) -> LanguageModel:
    return loaded(hearing)


def writing(prompt: Content, *, instruction: str = "", tokens: int = 8) -> GenerateRequest:
    asked = Sampling(temperature=0, max_tokens=tokens)
    return GenerateRequest(instruction=instruction, prompt=prompt, seeds=(0,), sampling=asked)


def require_same_scores(asked: Sequence[ScoreRequest], model: Held, reference: LanguageModel) -> None:
    for one, of_reference in zip(model.score(asked), reference.score(asked), strict=True):
        assert one.error is None
        assert one.tokens_in == of_reference.tokens_in
        for line, of_line in zip(one.logprobs, of_reference.logprobs, strict=True):
            assert line == pytest.approx(of_line, abs=1e-2)


def require_same_texts(asked: Sequence[GenerateRequest], model: Held, reference: LanguageModel) -> list[Completion]:
    found, wanted = model.generate(asked), reference.generate(asked)
    assert [one.candidates[0].text for one in found] == [one.candidates[0].text for one in wanted]
    assert [one.tokens_in for one in found] == [one.tokens_in for one in wanted]
    return found


class TestImages:
    def test_scores_are_those_of_transformers(self, seeing: Held, other_seeing: LanguageModel) -> None:
        asked = [scoring((image, "A text.")) for image in PICTURES]
        asked += [scoring("No image."), scoring((PICTURES[0], "or", PICTURES[1]))]
        require_same_scores(asked, seeing, other_seeing)

    def test_texts_are_those_of_transformers(self, seeing: Held, other_seeing: LanguageModel) -> None:
        require_same_texts([writing((image, "Write.")) for image in PICTURES], seeing, other_seeing)

    def test_their_tokens_are_counted(self, seeing: Held) -> None:
        seeing.ask("take_usage")
        [scores] = seeing.score([scoring((PICTURES[0], "A text."))])
        assert seeing.ask("take_usage")["prompt_tokens"] > 2 * TOKENS  # read for each question
        assert scores.tokens_in > TOKENS

    def test_a_row_whose_images_do_not_fit_is_its_own_fault(self, seeing: Held) -> None:
        crowd = tuple(PICTURES[0] for _ in range(CONTEXT // TOKENS))
        too_long, broken, fits = seeing.score(
            [scoring((*crowd, "Which?")), scoring((Image.of(b"none"), "What?")), scoring((PICTURES[1], "This?"))]
        )
        assert f"context and {CONTEXT // TOKENS} images with" in str(too_long.error)
        assert "cannot be read" in str(broken.error)
        assert fits.error is None


class TestSounds:
    def test_scores_are_those_of_transformers(self, listening: Held, other_listening: LanguageModel) -> None:
        asked = [scoring((sound, "A text.")) for sound in SOUNDS]
        asked.append(scoring("No sound."))
        require_same_scores(asked, listening, other_listening)

    def test_texts_are_those_of_transformers(self, listening: Held, other_listening: LanguageModel) -> None:
        require_same_texts([writing((sound, "Write.")) for sound in SOUNDS], listening, other_listening)

    def test_a_row_whose_sounds_do_not_fit_is_its_own_fault(self, listening: Held) -> None:
        long = Sound.of(tone(220.0, seconds=CONTEXT / SECOND_TOKENS))
        too_long, broken, fits = listening.score(
            [scoring((long, "Which?")), scoring((Sound.of(b"none"), "What?")), scoring((SOUNDS[1], "This?"))]
        )
        assert "context and 1 sound with" in str(too_long.error)
        assert "cannot be read" in str(broken.error)
        assert fits.error is None


class TestHolder:
    def test_a_model_without_a_system_role_reads_the_instruction(
        self, listening: Held, other_listening: LanguageModel
    ) -> None:
        request = writing("cats <|im_end|> dogs", instruction="Be brief.", tokens=12)
        without = writing("cats <|im_end|> dogs", tokens=12)
        found = require_same_texts([request, without], listening, other_listening)
        assert found[0].tokens_in > found[1].tokens_in

    def test_no_process_outlives_a_holder_that_is_killed(self, seeing: Held, listening: Held) -> None:
        started = processes_of(listening.process.pid)
        assert len(started) >= 2
        others = processes_of(seeing.process.pid, but=[listening.process, *started])
        listening.process.kill()
        assert psutil.wait_procs(started, ENDED_SECONDS)[1] == []
        assert processes_of(seeing.process.pid) == others

    def test_an_engine_that_dies_is_said_and_its_holder_ends_with_all_it_started(
        self, seeing: Held, listening: Held
    ) -> None:
        holder = seeing.process
        started = processes_of(holder.pid, but=[listening.process, *processes_of(listening.process.pid)])
        (core,) = [one for one in started if one.ppid() == holder.pid and is_core(one)]
        core.kill()
        for _ in range(2):  # while the engine dies, and when it is dead
            with pytest.raises(EngineDiedError, match="engine process with model"):
                seeing.generate([writing("cats")])
        seeing.calls.close()
        assert psutil.wait_procs([holder, *started], 60)[1] == []
