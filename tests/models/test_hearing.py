"""Requests that hold sounds, answered by a tiny audio-language model of random weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from media_requests import ANSWERS, INSTRUCTION, QUESTIONS, scoring, writing
from tiny_hearing import RATE, SECOND_TOKENS, SECONDS, save_tiny_hearing, save_tiny_listener, tone
from tiny_models import CONTEXT, loaded, save_tiny_llama
from tiny_vision import picture, save_tiny_vision
from transformers import AutoProcessor

from normloom.core.content import Content, Image, Sound, media_of, merged, shown, text_of, with_text
from normloom.core.errors import ConfigError
from normloom.models import ModelSpec
from normloom.models.media.senses import lacks
from normloom.models.transformers.engine import TransformersModel
from normloom.readers.media import at_rate

SOUNDS = [Sound.of(tone(pitch)) for pitch in (110.0, 440.0, 1760.0)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_hearing(tmp_path_factory.mktemp("hearing"))


@pytest.fixture(scope="module")
def tiny(directory: Path) -> TransformersModel:
    return loaded(directory)


def test_parts_of_a_content() -> None:
    image = Image.of(picture(0))
    content = shown(
        "Hear: \N{OBJECT REPLACEMENT CHARACTER} and see \N{OBJECT REPLACEMENT CHARACTER}", [SOUNDS[0], image]
    )
    assert content == ("Hear:", SOUNDS[0], "and see", image)
    assert media_of(content) == (SOUNDS[0], image)
    assert text_of(content) == f"Hear:\n\n[sound {SOUNDS[0].digest}]\n\nand see\n\n[image {image.digest}]"
    assert Sound.of(SOUNDS[0].data) == SOUNDS[0] != SOUNDS[1]
    assert Sound.of(b"x") != Image.of(b"x")  # type: ignore[comparison-overlap]  # whatever their bytes
    assert "data" not in repr(SOUNDS[0])


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_listener(tmp_path_factory.mktemp("listener"))


@pytest.mark.parametrize("content", [(SOUNDS[0], "A text."), ("Hear:", SOUNDS[1]), ("Is", SOUNDS[2], "it?")])
def test_scores_are_those_of_the_model_itself(tiny: TransformersModel, directory: Path, content: Content) -> None:
    require_own_scores(tiny, directory, content)


def test_a_model_without_a_function_for_its_sounds_is_read_as_it_reads_them_itself(listener: Path) -> None:
    model = loaded(listener)
    require_own_scores(model, listener, (SOUNDS[0], "A text."))
    require_own_scores(model, listener, ("Is", SOUNDS[1], "it, or", SOUNDS[2]))
    prompts = [writing((sound, "Write."), temperature=0) for sound in SOUNDS]
    written = model.generate(prompts)
    assert written == [model.generate([prompt])[0] for prompt in prompts]
    assert written == loaded(listener, share_prefix=False).generate(prompts)
    assert len({completion.candidates[0].text for completion in written}) > 1
    brief = [Sound.of(tone(220.0, seconds=seconds)) for seconds in (0.01, 0.04)]
    assert all(
        "is too small for the model" in str(one.error) for one in model.score([scoring((b, "It?")) for b in brief])
    )


def test_a_sound_that_the_processor_would_cut_is_its_rows_fault(listener: Path) -> None:
    long, fits = Sound.of(tone(220.0, seconds=1.5 * SECONDS)), SOUNDS[0]
    too_long, fine = loaded(listener).score([scoring((long, "It?")), scoring((fits, "It?"))])
    assert (
        too_long.error
        == f"sound {long.digest} is {1.5 * SECONDS} seconds long, and the model takes at most {SECONDS}: shorten it"
    )
    assert fine.error is None


def test_a_sound_in_pieces_is_not_cut_either(directory: Path, tmp_path: Path) -> None:
    short = Path(shutil.copytree(directory, tmp_path / "short"))
    settings = short / "processor_config.json"
    settings.write_text(settings.read_text().replace('"max_audio_len": 600', '"max_audio_len": 70'))
    sounds = [Sound.of(tone(220.0, seconds=seconds)) for seconds in (1.0, 61.0, 0.01, 0.0)]
    fine, too_long, brief, empty = loaded(short).score([scoring((sound, "It?")) for sound in sounds])
    assert fine.error is None
    assert "is 61.0 seconds long, and the model takes at most 60" in str(too_long.error)
    assert "is too small for the model" in str(brief.error)
    assert "it lasts 0 seconds" in str(empty.error)


def require_own_scores(tiny: TransformersModel, directory: Path, content: Content) -> None:
    """Require the scores of a content that the model itself gives, run as transformers runs it."""
    [scores] = tiny.score([scoring(content)])
    processor = AutoProcessor.from_pretrained(directory)
    for question, found in zip(QUESTIONS, scores.logprobs, strict=True):
        parts = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "audio"}
            for part in merged(with_text(content, question))
        ]
        messages = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": parts}]
        text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        samples = [at_rate(sound.data, RATE) for sound in media_of(content)]
        inputs = processor(text=[text], audio=samples, return_tensors="pt")
        with torch.inference_mode():
            own = tiny.reader.model(**inputs).logits[0, -1].log_softmax(-1)
        assert found == pytest.approx([float(own[tiny.chat.answer(INSTRUCTION, one)]) for one in ANSWERS], abs=1e-4)


def test_a_batch_gives_what_single_requests_give(tiny: TransformersModel, directory: Path) -> None:
    asked = [scoring((sound, f"Text {place} {'long ' * place}")) for place, sound in enumerate(SOUNDS)]
    asked.append(scoring("No sound at all."))
    together = tiny.score(asked)
    whole = loaded(directory, share_prefix=False).score(asked)
    for one, unshared, request in zip(together, whole, asked, strict=True):
        [single] = tiny.score([request])
        for at in range(len(QUESTIONS)):
            assert one.logprobs[at] == pytest.approx(single.logprobs[at], abs=1e-4)
            assert one.logprobs[at] == pytest.approx(unshared.logprobs[at], abs=1e-4)
    assert len({scores.logprobs for scores in together}) == len(asked)
    prompts = [writing((sound, "Write."), temperature=0) for sound in SOUNDS]
    assert tiny.generate(prompts) == [tiny.generate([prompt])[0] for prompt in prompts]


def test_a_sound_is_encoded_once_and_counts_in_the_account_of_each_row(directory: Path) -> None:
    model = loaded(directory)
    asked = [scoring((SOUNDS[0], f"Version {version}")) for version in range(3)]
    heard, said = model.score(asked), model.score([scoring(f"Version {version}") for version in range(3)])
    model.generate([writing((SOUNDS[0], "And now?"))])
    assert model.take_usage()["sounds"] == 1
    assert [one.tokens_in - other.tokens_in for one, other in zip(heard, said, strict=True)] == [SECOND_TOKENS] * 3
    assert model.take_usage()["sounds"] == 0


def test_a_sound_of_another_rate_and_format_is_heard_as_it_is(tiny: TransformersModel) -> None:
    other = Sound.of(tone(440.0, rate=2 * RATE, form="FLAC"))
    [one], [again] = tiny.score([scoring((SOUNDS[1], "It?"))]), tiny.score([scoring((other, "It?"))])
    assert np.array(again.logprobs) == pytest.approx(np.array(one.logprobs), abs=0.1)
    [different] = tiny.score([scoring((SOUNDS[2], "It?"))])
    assert np.abs(np.array(different.logprobs) - np.array(one.logprobs)).max() > 0.1


def test_a_row_whose_sounds_do_not_fit_is_its_own_fault(tiny: TransformersModel) -> None:
    long = Sound.of(tone(220.0, seconds=CONTEXT / SECOND_TOKENS))
    too_long, fits = tiny.score([scoring((long, "Which?")), scoring((SOUNDS[1], "This?"))])
    assert "context and 1 sound with their longest question is" in str(too_long.error)
    assert f"the model's limit {CONTEXT}" in str(too_long.error)
    assert fits.error is None
    [written] = tiny.generate([writing((long, "Which?"))])
    assert "prompt with 1 sound of" in str(written.error)


def test_a_sound_that_is_none_is_its_rows_fault(tiny: TransformersModel) -> None:
    broken, fine = tiny.score([scoring((Sound.of(b"not a sound"), "This?")), scoring((SOUNDS[0], "This?"))])
    assert "cannot be read" in str(broken.error)
    assert fine.error is None


def test_who_cannot_hear_says_so(directory: Path, tmp_path: Path) -> None:
    sees = save_tiny_vision(tmp_path / "sees")
    reads = save_tiny_llama(tmp_path / "reads")
    with pytest.raises(ConfigError, match="cannot hear sounds, and a request holds 1"):
        loaded(reads).score([scoring((SOUNDS[0], "This?"))])
    with pytest.raises(ConfigError, match="cannot see images, and a request holds 1"):
        loaded(directory).score([scoring((Image.of(picture(0)), "This?"))])
    assert lacks(ModelSpec(model=str(directory)), Sound) is None
    assert lacks(ModelSpec(engine="vllm", model=str(directory)), Sound) is None
    assert "describes a model that takes no images" in str(lacks(ModelSpec(model=str(directory)), Image))
    assert "describes a model that takes no sounds" in str(lacks(ModelSpec(model=str(sees)), Sound))
    assert "describes a model of text alone" in str(lacks(ModelSpec(model=str(reads)), Sound))
    assert "hands models no sounds" in str(lacks(ModelSpec(engine="openvino", model=str(directory)), Sound))
    assert "option sounds is off" in str(lacks(ModelSpec(engine="scripted", model="s"), Sound))
    assert lacks(ModelSpec(engine="scripted", model="s", options={"sounds": True}), Sound) is None
    assert "option sounds is off" in str(lacks(ModelSpec(engine="openai", model="m", options={"sounds": False}), Sound))
