"""Requests that hold images, answered by a tiny vision-language model of random weights."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from media_requests import ANSWERS, INSTRUCTION, scoring, writing
from tiny_models import CONTEXT, loaded, save_tiny_llama
from tiny_vision import TEMPLATE, TILE_TOKENS, picture, save_tiny_vision
from transformers import AutoProcessor, AutoTokenizer, Idefics3ForConditionalGeneration, Qwen2VLConfig

from normloom.core.content import Content, Image, Sound, media_of, merged, text_of, with_text
from normloom.core.errors import ConfigError, ModelError
from normloom.models import Completion, ModelSpec, load_model, model_identity
from normloom.models.media.decoded import pixels_of, samples_of
from normloom.models.media.processors import processor_of
from normloom.models.media.senses import lacks, require_senses
from normloom.models.requests.chat import Chat
from normloom.models.transformers.engine import TransformersModel
from normloom.models.transformers.media import Media
from normloom.readers.media import image_of
from normloom.testing.toy import echo_stage, words_stage

PICTURES = [Image.of(picture(seed)) for seed in range(3)]
TOKENS = 5 * TILE_TOKENS  # four tiles and the whole


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_vision(tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="module")
def tiny(directory: Path) -> TransformersModel:
    return loaded(directory)


def test_parts_of_a_content() -> None:
    assert merged(("a", "b", PICTURES[0], PICTURES[1])) == ("a\n\nb", PICTURES[0], PICTURES[1], "")
    assert with_text((PICTURES[0],), "what?") == (PICTURES[0], "what?")
    assert with_text((PICTURES[0], "a"), "what?") == (PICTURES[0], "a\n\nwhat?")
    assert with_text("a", "what?") == "a\n\nwhat?"
    assert media_of(("a", PICTURES[1])) == (PICTURES[1],)
    assert text_of(("a", PICTURES[1])) == f"a\n\n[image {PICTURES[1].digest}]"
    assert Image.of(PICTURES[0].data) == PICTURES[0] != PICTURES[1]
    assert str(len(PICTURES[0].data)) not in repr(PICTURES[0])
    assert "data" not in repr(PICTURES[0])


@pytest.mark.parametrize(
    "content", [(PICTURES[0], "A text."), ("Look:", PICTURES[1]), (PICTURES[0], "or", PICTURES[2])]
)
def test_scores_are_those_of_the_model_itself(tiny: TransformersModel, directory: Path, content: Content) -> None:
    [scores] = tiny.score([scoring(content)])
    processor = AutoProcessor.from_pretrained(directory)
    for question, found in zip(("Is it?", "Cats?"), scores.logprobs, strict=True):
        parts = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
            for part in merged(with_text(content, question))
        ]
        messages = [
            {"role": "system", "content": [{"type": "text", "text": INSTRUCTION}]},
            {"role": "user", "content": parts},
        ]
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        pixels = [image_of(image.data) for image in media_of(content)]
        inputs = processor(text=[text], images=[pixels], return_tensors="pt")
        with torch.inference_mode():
            own = tiny.reader.model(**inputs).logits[0, -1].log_softmax(-1)
        assert found == pytest.approx([float(own[tiny.chat.answer(INSTRUCTION, one)]) for one in ANSWERS], abs=1e-4)


def test_a_batch_gives_what_single_requests_give(tiny: TransformersModel, directory: Path) -> None:
    asked = [scoring((image, f"Text {place} {'long ' * place}")) for place, image in enumerate(PICTURES)]
    asked.append(scoring("No image at all."))
    together = tiny.score(asked)
    single = [tiny.score([request])[0] for request in asked]
    whole = loaded(directory, share_prefix=False).score(asked)
    for one, other, unshared in zip(together, single, whole, strict=True):
        for at in range(2):
            assert one.logprobs[at] == pytest.approx(other.logprobs[at], abs=1e-4)
            assert one.logprobs[at] == pytest.approx(unshared.logprobs[at], abs=1e-4)
    assert len({scores.logprobs for scores in together}) == 4
    prompts = [writing((image, "Write.")) for image in PICTURES] + [writing(("Which?", *PICTURES[:2]), temperature=0)]
    assert tiny.generate(prompts) == [tiny.generate([prompt])[0] for prompt in prompts]


def test_an_image_decides_what_is_written(tiny: TransformersModel) -> None:
    drawn = tiny.generate([writing((image, "Write."), repetition_penalty=1.2) for image in PICTURES])
    assert len({completion.candidates[0].text for completion in drawn}) > 1
    assert all(isinstance(one, Completion) and one.tokens_in > TOKENS for one in drawn)


def test_an_image_asked_about_eight_times_is_encoded_once(directory: Path) -> None:
    model = loaded(directory)
    asked = [
        scoring((PICTURES[0], f"Version {version}"), "a or b?", "b or a?", instruction=f"{INSTRUCTION} {language}")
        for version in range(2)
        for language in ("en", "de")
    ]
    scores = model.score(asked)
    model.generate([writing((PICTURES[0], "And now?"))])
    assert model.take_usage()["images"] == 1
    assert all(one.tokens_in > TOKENS for one in scores)  # the account of each row has the tokens of its image


def test_a_row_whose_images_do_not_fit_is_its_own_fault(tiny: TransformersModel) -> None:
    crowd = tuple(PICTURES[0] for _ in range(CONTEXT // TOKENS))
    too_long, fits = tiny.score([scoring((*crowd, "Which?")), scoring((PICTURES[1], "This?"))])
    assert f"context and {CONTEXT // TOKENS} images with their longest question is" in str(too_long.error)
    assert f"the model's limit {CONTEXT}" in str(too_long.error)
    assert fits.error is None
    [written] = tiny.generate([writing((*crowd, "Which?"))])
    assert "prompt with" in str(written.error)


def test_an_image_that_is_none_is_its_rows_fault(tiny: TransformersModel) -> None:
    broken, fine = tiny.score([scoring((Image.of(b"not a picture"), "This?")), scoring((PICTURES[0], "This?"))])
    assert "cannot be read" in str(broken.error)
    assert fine.error is None


@pytest.mark.parametrize(
    ("shown", "said"),
    [("", "leaves out 1 of 1 images and sounds"), ("<image><image>", "shows more images than the request has")],
)
def test_a_template_that_shows_other_images_is_an_error(
    directory: Path, tiny: TransformersModel, shown: str, said: str
) -> None:
    words = AutoTokenizer.from_pretrained(directory)
    words.chat_template = TEMPLATE.replace("<image>", shown)
    chat = Chat(words, name="tiny", senses=tiny.media)
    with torch.inference_mode(), pytest.raises(ModelError, match=f"the chat template of model 'tiny' {said}"):
        chat.framed_after("", (), (PICTURES[0], "Look."))


def test_a_template_of_the_processor_alone_is_used(directory: Path, tiny: TransformersModel, tmp_path: Path) -> None:
    other = Path(shutil.copytree(directory, tmp_path / "other"))
    (other / "chat_template.jinja").unlink()
    (other / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    asked = [scoring((PICTURES[0], "This?"))]
    assert loaded(other).score(asked) == tiny.score(asked)


def test_images_that_are_let_go_are_encoded_again(directory: Path) -> None:
    model = loaded(directory)
    asked = [scoring((PICTURES[0], "This?"))]
    before = model.score(asked)
    assert model.media is not None
    model.media.trim(0)
    assert model.score(asked) == before
    assert model.take_usage()["images"] == 2


def test_what_cannot_be_read_as_tokens_is_refused(directory: Path, tiny: TransformersModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="model 'tiny' does not read sounds as tokens, which engine transformers"):
        Media(tiny.reader.model, directory, kinds=[Sound], name="tiny")
    broken = Path(shutil.copytree(directory, tmp_path / "broken"))
    for path in (*broken.glob("*processor_config.json"), *broken.glob("tokenizer*")):
        path.unlink()
    with pytest.raises(ModelError, match="model 'tiny': the processor of its images or sounds cannot be loaded: "):
        processor_of(broken, "tiny")


def test_a_processor_of_another_model_is_refused(directory: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(directory, tmp_path / "other"))
    settings = other / "processor_config.json"
    told = json.loads(settings.read_text())
    settings.write_text(json.dumps({**told, "image_seq_len": TILE_TOKENS + 1}))
    said = rf"makes {TOKENS} vectors of image {PICTURES[0].digest} for {TOKENS + 5} tokens"
    with pytest.raises(ModelError, match=said):
        loaded(other).score([scoring((PICTURES[0], "This?"))])


class Contrary(Idefics3ForConditionalGeneration):  # type: ignore[misc]  # transformers has no types here
    """A model that makes something else of the vectors of an image than of those of words."""

    def forward(self, *given: Any, pixel_values: torch.Tensor | None = None, **named: Any) -> Any:
        found = super().forward(*given, pixel_values=pixel_values, **named)
        return found if pixel_values is None else replace(found, logits=-found.logits)


def test_a_model_that_reads_images_in_a_way_of_its_own_is_refused(directory: Path) -> None:
    media = Media(Contrary.from_pretrained(directory).eval(), directory, kinds=[Image], name="odd")
    with torch.inference_mode(), pytest.raises(ModelError, match=r"'odd' reads images in a way .* use engine vllm"):
        media.tokens(PICTURES[0])


@pytest.mark.parametrize(
    ("absent", "read"),
    [("PIL", lambda: pixels_of(PICTURES[0])), ("soundfile", lambda: samples_of(Sound.of(b"x"), 8_000))],
)
def test_a_package_that_reads_media_is_named_if_it_is_absent(
    absent: str, read: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == absent]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModelError, match=rf'of requests need {absent}\S*: pip install "normloom\[media\]"'):
        read()


def test_text_that_looks_like_the_mark_of_an_image_is_text(tiny: TransformersModel) -> None:
    marked, plain = tiny.score([scoring((PICTURES[0], "an <image> here")), scoring((PICTURES[0], "an here"))])
    assert marked.error is None
    assert marked.tokens_in - plain.tokens_in < TOKENS


def test_how_images_are_cut_is_part_of_what_a_model_is(directory: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(directory, tmp_path / "other"))
    before = model_identity(ModelSpec(model=str(other)))
    settings = other / "processor_config.json"
    settings.write_text(settings.read_text().replace('"longest_edge": 64', '"longest_edge": 32'))
    after = model_identity(ModelSpec(model=str(other)))
    assert {name for name in before if before[name] != after[name]} == {"configuration"}


def test_a_model_of_text_alone_says_that_it_cannot_see(tmp_path: Path) -> None:
    text_model = save_tiny_llama(tmp_path)
    model = load_model(ModelSpec(model=str(text_model), dtype="float32", device="cpu"), threads=1)
    assert isinstance(model, TransformersModel)
    with pytest.raises(ConfigError, match="cannot see images"):
        model.score([scoring((PICTURES[0], "This?"))])


def test_who_cannot_see_is_known_before_anything_is_loaded(directory: Path, tmp_path: Path) -> None:
    assert lacks(ModelSpec(model=str(directory)), Image) is None
    assert lacks(ModelSpec(engine="vllm", model=str(directory)), Image) is None
    text_model = save_tiny_llama(tmp_path)
    assert lacks(ModelSpec(model="/nowhere/at/all"), Image) is None  # that is said where it is looked for
    assert "describes a model of text alone" in str(lacks(ModelSpec(model=str(text_model)), Image))
    assert "hands models no images" in str(lacks(ModelSpec(engine="openvino", model=str(directory)), Image))
    assert "option images is off" in str(lacks(ModelSpec(engine="scripted", model="s"), Image))
    assert lacks(ModelSpec(engine="scripted", model="s", options={"images": True}), Image) is None
    hosted = ModelSpec(engine="openai", model="m", options={"images": False})
    assert "option images is off" in str(lacks(hosted, Image))
    assert lacks(ModelSpec(engine="openai", model="m"), Image) is None


def test_a_model_that_counts_places_in_three_dimensions_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10_000.0}
    text = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "rope_parameters": rope}
    Qwen2VLConfig(text_config=text).save_pretrained(tmp_path)
    spec = ModelSpec(model=str(tmp_path))
    with pytest.raises(ConfigError, match=r"model .* cannot be asked: it counts places in images .*\(M-RoPE\).*vllm"):
        require_senses([echo_stage(words_stage("a"), model=spec)])
    with pytest.raises(ModelError, match=r"cannot be asked: .*M-RoPE"):
        load_model(spec)
    require_senses([echo_stage(words_stage("a"), model=spec.model_copy(update={"engine": "vllm"}))])
