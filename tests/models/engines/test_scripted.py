from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from normloom.core.content import Image
from normloom.core.errors import ConfigError
from normloom.models import (
    Embedder,
    GenerateRequest,
    LanguageModel,
    ModelSpec,
    Sampling,
    ScoreRequest,
    load_model,
)
from normloom.models.scripted import ScriptedModel


def scripted(**options: Any) -> ScriptedModel:
    model = load_model(ModelSpec(engine="scripted", model="toy", options=options))
    assert isinstance(model, ScriptedModel)
    return model


def scoring(context: str, questions: int = 4) -> ScoreRequest:
    asked = tuple(f"question {k}" for k in range(questions))
    return ScoreRequest(instruction="judge", context=context, questions=asked, answers=("Yes", "No"))


def writing(prompt: str, *seeds: int, **sampling: Any) -> GenerateRequest:
    return GenerateRequest(instruction="write", prompt=prompt, seeds=seeds, sampling=Sampling(**sampling))


def test_it_speaks_both_protocols() -> None:
    assert isinstance(scripted(), LanguageModel)
    assert isinstance(scripted(), Embedder)


def test_results_do_not_depend_on_the_batch() -> None:
    model = scripted()
    scores = [scoring(str(i)) for i in range(5)]
    texts = [writing(str(i), 1, 2) for i in range(5)]
    assert model.score(scores) == [scripted().score([request])[0] for request in scores]
    assert model.generate(texts) == [scripted().generate([request])[0] for request in texts]


def test_scores_are_log_probabilities_of_the_shape_asked_for() -> None:
    (scores,) = scripted().score([scoring("a", questions=7)])
    table = np.exp(np.array(scores.logprobs))
    assert table.shape == (7, 2)
    assert (table > 0).all()
    assert (table.sum(1) < 1).all()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_yes_rate_is_the_share_of_questions_answered_yes(rate: float) -> None:
    results = scripted(yes_rate=rate).score([scoring(str(i), questions=10) for i in range(200)])
    yes = np.mean([line[0] > line[1] for scores in results for line in scores.logprobs])
    assert abs(yes - rate) < 0.05


def test_texts_differ_by_seed_and_have_about_the_length_asked_for() -> None:
    (completion,) = scripted(words=30).generate([writing("p", *range(300))])
    texts = [candidate.text for candidate in completion.candidates]
    assert len(set(texts)) == 300
    assert 28 < np.mean([candidate.tokens_out for candidate in completion.candidates]) < 32
    assert [candidate.seed for candidate in completion.candidates] == list(range(300))


def test_repeat_rate_makes_exact_repeats() -> None:
    (completion,) = scripted(repeat_rate=0.5).generate([writing("p", *range(400))])
    texts = [candidate.text for candidate in completion.candidates]
    assert 0.4 < 1 - len(set(texts)) / 400 < 0.6


def test_greedy_gives_every_seed_the_same() -> None:
    (completion,) = scripted().generate([writing("p", 1, 2, 3, temperature=0)])
    assert len({candidate.text for candidate in completion.candidates}) == 1


def test_max_tokens_and_stop_strings_are_kept() -> None:
    (completion,) = scripted(words=50).generate([writing("p", *range(20), max_tokens=5, stop=("zzz", "e"))])
    for candidate in completion.candidates:
        assert len(candidate.text.split()) <= 5
        assert "e" not in candidate.text
    (cut,) = scripted(words=50).generate([writing("p", *range(20), max_tokens=5)])
    assert {(candidate.finish, candidate.tokens_out) for candidate in cut.candidates} == {("length", 5)}


def test_vectors_are_unit_and_near_for_texts_that_share_words() -> None:
    vectors = scripted(dimensions=128).embed(["bake some bread today", "bake some bread", "the court ruled", ""])
    assert vectors.shape == (4, 128)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.6 > vectors[0] @ vectors[2]
    assert scripted().embed([]).shape == (0, 64)


def test_latency_is_waited_in_each_call() -> None:
    start = time.monotonic()
    scripted(latency_s=0.05).score([scoring("a"), scoring("b")])
    assert time.monotonic() - start >= 0.05


def test_overflow_sets_the_error_of_the_request_that_holds_the_mark() -> None:
    model = scripted(overflow_on="HUGE")
    long, short = model.score([scoring("HUGE"), scoring("small")])
    assert long.logprobs == ()
    assert "do not fit" in (long.error or "")
    assert short.error is None
    assert model.generate([writing("HUGE", 1)])[0].error is not None


def test_raise_on_raises() -> None:
    with pytest.raises(ValueError, match="holds 'BAD'"):
        scripted(raise_on="BAD").generate([writing("fine", 1), writing("a BAD one", 1)])


def test_poison_ends_the_process() -> None:
    code = (
        "from normloom.models import ModelSpec, load_model\n"
        "model = load_model(ModelSpec(engine='scripted', model='toy', options={'poison': 'venom'}))\n"
        "model.embed(['fine'])\n"
        "print('alive', flush=True)\n"
        "model.embed(['some venom'])\n"
        "print('unreached', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (1, ["alive"])


def test_sounds_have_vectors_and_a_model_that_does_not_see_is_asked_about_no_image() -> None:
    vectors = scripted().embed_sounds([b"one", b"other", b"one"])
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.allclose(vectors[0], vectors[1])
    with pytest.raises(ConfigError, match="cannot see images: engine scripted has its option images off"):
        scripted().score([replace(scoring("a"), context=(Image.of(b"x"), "a"))])


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(ConfigError, match=r"yes_rate: .*less than 1"):
        scripted(yes_rate=2)
