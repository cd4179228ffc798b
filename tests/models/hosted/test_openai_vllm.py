"""The openai engine against vLLM's own server, which must answer as transformers does with the same model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
import torch
from fault_proxy import FAULTS, faulty
from vllm_server import vllm_command, vllm_server

from normloom.core.errors import ModelError
from normloom.models import GenerateRequest, ModelSpec, Sampling, ScoreRequest
from normloom.models.files.locate import PACKAGED, find, locate
from normloom.models.openai.engine import OpenaiModel
from normloom.models.transformers.engine import TransformersModel

SMOL = "SmolLM2-135M-Instruct"
INSTRUCTION = "You judge texts. Answer each question with Yes or No, and nothing else."
QUESTIONS = ("Is the text about an animal?", "Is the text rude?", "Does the text ask for something?")
TEXTS = (
    "The cat sat on the mat and looked at the rain.",
    "What is the capital of France?",
    "naïve café, 数 and 🦜",
    "Write a short poem about the sea, the wind and the old lighthouse keeper.",
    "No.",
    "Give me your money, now.",
)
NATS = 0.01

pytestmark = [
    pytest.mark.skipif(vllm_command() is None, reason="vLLM is not installed here: make install-vllm"),
    pytest.mark.skipif(find(SMOL) is None, reason=f"package {PACKAGED[SMOL].package} is not installed"),
]


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with vllm_server(locate(ModelSpec(model=SMOL)), name=SMOL, log=log) as url:
        yield url
    with pytest.raises(httpx.TransportError):
        httpx.get(url)


@pytest.fixture(scope="module")
def hosted(base_url: str) -> Iterator[OpenaiModel]:
    with closing(asking(base_url)) as model:
        yield model


@pytest.fixture(scope="module")
def direct() -> TransformersModel:
    return TransformersModel(ModelSpec(model=SMOL, dtype="float32"), threads=2)


def asking(base_url: str, *, model: str = SMOL, **options: Any) -> OpenaiModel:
    stated = {"base_url": base_url, "key_variable": None, "timeout_s": 120, "backoff_cap_s": 0.1, **options}
    return OpenaiModel(ModelSpec(engine="openai", model=model, options=stated))


def scoring(context: str) -> ScoreRequest:
    return ScoreRequest(instruction=INSTRUCTION, context=context, questions=QUESTIONS, answers=("Yes", "No"))


def writing(prompt: str, *seeds: int, schema: str | None = None, **sampling: Any) -> GenerateRequest:
    settings = Sampling(**{"max_tokens": 16, **sampling})
    return GenerateRequest(
        instruction="You write.", prompt=prompt, seeds=seeds or (1,), sampling=settings, json_schema=schema
    )


def test_scores_are_those_of_transformers(hosted: OpenaiModel, direct: TransformersModel) -> None:
    requests = [scoring(text) for text in TEXTS]
    for found, wanted in zip(hosted.score(requests), direct.score(requests), strict=True):
        assert found.error is None
        for line, expected in zip(found.logprobs, wanted.logprobs, strict=True):
            assert max(line) == pytest.approx(max(expected), abs=NATS)
            assert all(
                one >= other - NATS for one, other in zip(line, expected, strict=True)
            )  # what is not listed: more


def test_greedy_texts_are_the_likeliest_to_transformers(hosted: OpenaiModel, direct: TransformersModel) -> None:
    requests = [writing(text, temperature=0) for text in TEXTS]
    for request, completion in zip(requests, hosted.generate(requests), strict=True):
        prompt = direct.prompter.writing(request)
        assert completion.tokens_in == prompt.tokens
        assert shortfall(direct, prompt.sequences()[0], completion.candidates[0].text) <= NATS


def shortfall(model: TransformersModel, prompt: list[int], text: str) -> float:
    """Return how far the tokens of a text are at most from the likeliest at their places."""
    written = model.chat.plain([text])[0]
    with torch.inference_mode():
        logits = model.reader.model(torch.tensor([[*prompt, *written]])).logits[0, len(prompt) - 1 : -1]
    return float((logits.max(-1).values - logits[range(len(written)), written]).max())


def test_seeds_draw_differently(hosted: OpenaiModel) -> None:
    [completion] = hosted.generate([writing(TEXTS[3], 1, 2, 2**62, temperature=1.0, top_p=1.0)])
    assert len({candidate.text for candidate in completion.candidates}) == 3
    assert all(candidate.tokens_out <= 16 for candidate in completion.candidates)


def test_an_answer_follows_its_schema(hosted: OpenaiModel) -> None:
    schema = {
        "type": "object",
        "properties": {"animal": {"type": "boolean"}},
        "required": ["animal"],
        "additionalProperties": False,
    }
    request = writing(TEXTS[0], 1, 2, max_tokens=64, schema=json.dumps(schema))
    [completion] = hosted.generate([request])
    for candidate in completion.candidates:
        assert candidate.finish == "length" or isinstance(json.loads(candidate.text)["animal"], bool)


def test_what_does_not_fit_is_the_rows_error(hosted: OpenaiModel) -> None:
    fits, long = hosted.generate([writing(TEXTS[0]), writing("cats " * 3000)])
    assert fits.error is None
    assert "does not fit the endpoint's context" in (long.error or "")
    assert "2048" in (long.error or "")
    [scores] = hosted.score([scoring("cats " * 3000)])
    assert "does not fit the endpoint's context" in (scores.error or "")


def test_an_unknown_model_ends_the_work(base_url: str) -> None:
    with closing(asking(base_url, model="other")) as model, pytest.raises(ModelError, match=r"404: .*check the name"):
        model.generate([writing("text")])


def test_faults_on_the_way_cost_tries_only(base_url: str) -> None:
    requests = [writing(f"{text} {i}", max_tokens=4) for text in TEXTS for i in range(5)]
    faults = [fault for fault in FAULTS if fault != "slow"]  # which would end with a timeout of our own
    with (
        faulty(base_url, every=4, faults=faults) as proxy,
        closing(asking(proxy.base_url, retries=20)) as model,
    ):
        completions = model.generate(requests)
        usage = model.take_usage()
    assert [completion.error for completion in completions] == [None] * len(requests)
    assert set(proxy.done) == set(faults)
    assert usage["retries"] == sum(proxy.done.values())
    assert usage["prompt_tokens"] == sum(completion.tokens_in for completion in completions)
