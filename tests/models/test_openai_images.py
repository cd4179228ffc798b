"""Images in requests to endpoints: sent as data URIs to a server that decodes and looks at them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from PIL import Image as Images
from seeing_server import IMAGE_TOKENS, SeeingServer, asked, seeing

from normloom.core.content import Content, Image
from normloom.core.errors import ConfigError, ModelError
from normloom.models import GenerateRequest, Sampling, ScoreRequest
from normloom.models.openai.endpoint import _expected_tokens
from normloom.models.openai.media import TOKENS
from normloom.models.openai.probe import probe
from normloom.models.openai.replies.failures import SpentError


@pytest.fixture(scope="module")
def server() -> Iterator[SeeingServer]:
    with seeing() as serving:
        yield serving


def image(colour: str, form: str = "PNG", size: tuple[int, int] = (48, 32)) -> Image:
    stream = io.BytesIO()
    Images.new("RGB", size, colour).save(stream, form)
    return Image.of(stream.getvalue())


def noise(side: int) -> Image:
    """Return an image that no format makes small, more red than green."""
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    pixels[..., 1] //= 4
    stream = io.BytesIO()
    Images.fromarray(pixels).save(stream, "PNG")
    return Image.of(stream.getvalue())


def writing(prompt: Content) -> GenerateRequest:
    return GenerateRequest(instruction="Look.", prompt=prompt, seeds=(0,), sampling=Sampling(max_tokens=4))


def scoring(context: Content) -> ScoreRequest:
    return ScoreRequest(instruction="Look.", context=context, questions=("Red?", "Really?"), answers=("a", "b"))


@pytest.mark.parametrize(
    ("form", "sent"),
    [("PNG", "PNG"), ("JPEG", "JPEG"), ("WEBP", "WEBP"), ("GIF", "GIF"), ("BMP", "PNG"), ("TIFF", "PNG")],
)
def test_an_image_arrives_in_a_format_that_endpoints_take(server: SeeingServer, form: str, sent: str) -> None:
    with closing(asked(server)) as model:
        red, green = model.generate([writing((image(colour, form), "Red?")) for colour in ("red", "green")])
    assert [completion.candidates[0].text for completion in (red, green)] == ["a", "b"]
    assert {told[:3] for told in server.images} == {(sent, 48, 32)}
    assert red.tokens_in == 1 + IMAGE_TOKENS  # what the endpoint counts


def test_scores_of_images(server: SeeingServer) -> None:
    with closing(asked(server, image_detail="low")) as model:
        red, both = model.score([scoring((image("red"), "Text")), scoring(("One", image("red"), image("green")))])
    assert all(a > b for a, b in red.logprobs)
    assert all(a < b for a, b in both.logprobs)
    parts = [part for body in server.bodies for part in body["messages"][-1]["content"]]
    kinds = [[part["type"] for part in body["messages"][-1]["content"]] for body in server.bodies]
    assert sorted(map(tuple, kinds)) == 2 * [("image_url", "text")] + 2 * [("text", "image_url", "image_url", "text")]
    assert {part["image_url"]["detail"] for part in parts if part["type"] == "image_url"} == {"low"}
    assert all(body["messages"][0] == {"role": "system", "content": "Look."} for body in server.bodies)


def test_images_are_held_to_a_size_and_a_length(server: SeeingServer) -> None:
    with closing(asked(server, image_side=100, image_bytes=4_000)) as model:
        [written] = model.generate([writing((noise(200), "Red?"))])
    assert written.candidates[0].text == "a"
    [(_, width, height, length)] = server.images
    assert width == height <= 100
    assert length <= 4_000


def test_a_narrow_image_that_no_size_makes_short_is_its_rows_fault(server: SeeingServer) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2_000, 16, 3), np.uint8)
    stream = io.BytesIO()
    Images.fromarray(pixels).save(stream, "PNG")
    with closing(asked(server, image_bytes=1_000)) as model:
        narrow, square = model.generate([writing((one, "Red?")) for one in (Image.of(stream.getvalue()), noise(200))])
    assert "cannot be made smaller than 1000 bytes" in str(narrow.error)
    assert square.candidates[0].text == "a"
    [(_, width, height, length)] = server.images
    assert 16 < width == height < 200
    assert length <= 1_000


def test_an_image_that_is_none_is_its_rows_fault(server: SeeingServer) -> None:
    with closing(asked(server)) as model:
        broken, fine = model.generate([writing((Image.of(b"none"), "Red?")), writing((image("red"), "Red?"))])
    assert "cannot be read" in str(broken.error)
    assert fine.error is None


def test_a_model_that_cannot_see_is_asked_nothing(server: SeeingServer) -> None:
    with closing(asked(server, images=False)) as model, pytest.raises(ConfigError, match="cannot see images"):
        model.generate([writing((image("red"), "Red?"))])
    assert not server.bodies


def test_an_instruction_without_a_system_role_comes_before_the_image(server: SeeingServer) -> None:
    with closing(asked(server, system_role=False)) as model:
        model.generate([writing((image("red"), "Red?"))])
    [message] = server.bodies[0]["messages"]
    assert [part.get("text") for part in message["content"]] == ["Look.", None, "Red?"]


def test_an_endpoint_is_asked_about_an_image_before_a_build_that_will(server: SeeingServer) -> None:
    spec = asked(server).spec
    found = probe(spec, media=[Image])
    assert server.images == [("PNG", 64, 64, server.images[0][3])]
    assert found.requests == 3  # a question, one for JSON, one about an image
    server.blind = True
    try:
        with pytest.raises(ModelError, match=r"refuses an image \(.*this model does not support image_url"):
            probe(spec, media=[Image])
        assert probe(spec).requests == 2
    finally:
        server.blind = False
    server.busy = True
    try:
        with pytest.raises(SpentError, match="503: overloaded"):
            probe(spec, media=[Image])
    finally:
        server.busy = False


def test_the_limit_of_rate_expects_tokens_for_an_image_and_not_for_its_bytes() -> None:
    text = {"type": "text", "text": "four"}
    shown = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    body = {"messages": [{"role": "user", "content": [text, shown]}], "max_tokens": 7}
    assert TOKENS + 7 <= _expected_tokens(body) <= TOKENS + 7 + 4
    assert len(json.dumps(body)) > 100_000
