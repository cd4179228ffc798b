"""Sounds in requests to endpoints: sent in base64 to a server that decodes and hears them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from clips import clip
from seeing_server import IMAGE_TOKENS, SeeingServer, asked, seeing
from tiny_hearing import tone
from tiny_vision import picture

from normloom.core.content import Content, Image, Sound
from normloom.core.errors import ConfigError, ModelError
from normloom.models import GenerateRequest, Sampling, ScoreRequest
from normloom.models.openai.probe import probe

LOUD, QUIET = Sound.of(tone(440.0)), Sound.of(tone(440.0, loud=0.01))


@pytest.fixture(scope="module")
def server() -> Iterator[SeeingServer]:
    with seeing() as serving:
        yield serving


def writing(prompt: Content) -> GenerateRequest:
    return GenerateRequest(instruction="Listen.", prompt=prompt, seeds=(0,), sampling=Sampling(max_tokens=4))


@pytest.mark.parametrize(
    ("form", "rate", "sent"),
    [("WAV", 8_000, ("wav", 8_000)), ("MP3", 16_000, ("mp3", 16_000)), ("FLAC", 44_100, ("wav", 16_000))],
)
def test_a_sound_arrives_in_a_format_that_endpoints_take(
    server: SeeingServer, form: str, rate: int, sent: tuple[str, int]
) -> None:
    sounds = [Sound.of(tone(440.0, rate=rate, form=form, loud=loud)) for loud in (0.5, 0.01)]
    with closing(asked(server)) as model:
        loud, quiet = model.generate([writing((sound, "Loud?")) for sound in sounds])
    assert [completion.candidates[0].text for completion in (loud, quiet)] == ["a", "b"]
    assert {told[:2] for told in server.sounds} == {sent}
    assert all(seconds == pytest.approx(1, abs=0.1) for _, _, seconds, _ in server.sounds)
    assert loud.tokens_in == 1 + IMAGE_TOKENS  # what the endpoint counts


def test_the_sound_of_a_video_is_sent_as_wav(server: SeeingServer) -> None:
    with closing(asked(server)) as model:
        [heard] = model.generate([writing((Sound.of(clip()), "Loud?"))])
    assert heard.error is None
    assert [told[:2] for told in server.sounds] == [("wav", 16_000)]


def test_scores_of_sounds_and_images(server: SeeingServer) -> None:
    image = Image.of(picture(0))
    questions = {"questions": ("Loud?", "Really?"), "answers": ("a", "b")}
    with closing(asked(server)) as model:
        loud, quiet = model.score(
            [
                ScoreRequest(instruction="Listen.", context=(LOUD, "Text"), **questions),
                ScoreRequest(instruction="Listen.", context=("One", LOUD, QUIET, image), **questions),
            ]
        )
    assert all(a > b for a, b in loud.logprobs)
    assert all(a < b for a, b in quiet.logprobs)
    kinds = [tuple(part["type"] for part in body["messages"][-1]["content"]) for body in server.bodies]
    many = ("text", "input_audio", "input_audio", "image_url", "text")
    assert sorted(kinds) == 2 * [("input_audio", "text")] + 2 * [many]


def test_a_long_sound_is_encoded_again_and_one_that_stays_too_long_is_its_rows_fault(server: SeeingServer) -> None:
    long, longer = (Sound.of(tone(440.0, seconds=seconds, rate=48_000)) for seconds in (1.0, 4.0))
    with closing(asked(server, sound_bytes=40_000)) as model:
        fits, too_long = model.generate([writing((sound, "Loud?")) for sound in (long, longer)])
    assert fits.error is None
    assert [(form, rate) for form, rate, _, length in server.sounds if length <= 40_000] == [("wav", 16_000)]
    assert "of 4 seconds is 128044 bytes as WAV of 16 kHz, more than sound_bytes (40000)" in str(too_long.error)


def test_a_sound_that_is_none_is_its_rows_fault(server: SeeingServer) -> None:
    with closing(asked(server)) as model:
        broken, fine = model.generate([writing((Sound.of(b"none"), "Loud?")), writing((LOUD, "Loud?"))])
    assert "cannot be read" in str(broken.error)
    assert fine.error is None


def test_a_model_that_cannot_hear_is_asked_nothing(server: SeeingServer) -> None:
    with closing(asked(server, sounds=False)) as model, pytest.raises(ConfigError, match="cannot hear sounds"):
        model.generate([writing((LOUD, "Loud?"))])
    assert not server.bodies


def test_an_endpoint_is_asked_about_a_sound_before_a_build_that_will(server: SeeingServer) -> None:
    spec = asked(server).spec
    assert probe(spec, media=[Sound]).requests == 3  # a question, one for JSON, one about a sound
    assert server.sounds == [("wav", 16_000, 1.0, 32_044)]
    server.deaf = True
    try:
        with pytest.raises(ModelError, match=r"refuses a sound \(.*does not support input_audio.* cannot hear"):
            probe(spec, media=[Sound])
        assert probe(spec, media=[Image]).requests == 3
    finally:
        server.deaf = False
