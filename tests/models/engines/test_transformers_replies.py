"""How likely given replies are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import CONTEXT

from normloom.core.models.protocol import ReplyRequest, Turn
from normloom.models.transformers.engine import TransformersModel
from normloom.models.transformers.replies import reply_log_probs

INSTRUCTION = "You judge texts. Answer each question with Yes or No."


def test_a_reply_is_as_likely_as_its_tokens_one_after_another(tiny: TransformersModel) -> None:
    asked = [
        ReplyRequest(instruction=INSTRUCTION, prompt="Is it about cats?", reply="Yes, it is about cats."),
        ReplyRequest(instruction=INSTRUCTION, prompt="And dogs? " * 5, reply="No."),
        ReplyRequest(instruction="", prompt="Hm?", reply="No.", history=(Turn("user", "Hi"), Turn("assistant", "Yes"))),
    ]
    scores = tiny.score_replies(asked)
    for request, score in zip(asked, scores, strict=True):
        exchange = tiny.prompter.exchange(request, end=tiny.tokenizer.eos_token_id)
        assert exchange.reply[-1] == tiny.tokenizer.eos_token_id
        ids = torch.tensor([[*exchange.prompt, *exchange.reply]])
        with torch.inference_mode():
            log_probs = tiny.reader.model(ids).logits.log_softmax(-1)[0]
        first = len(exchange.prompt)
        slow = sum(log_probs[first + place - 1, token].item() for place, token in enumerate(exchange.reply))
        assert score.logprob == pytest.approx(slow, abs=1e-4)
        assert (score.tokens, score.tokens_in) == (len(exchange.reply), first)


def test_a_prompt_is_read_once_for_all_replies_to_it(tiny: TransformersModel) -> None:
    asked = [
        ReplyRequest(instruction=INSTRUCTION, prompt=prompt, reply=f"{word} " * (length % 7 + 1))
        for prompt in ("Is it about cats?", "And dogs? " * 4)
        for word in ("Yes", "No", "Yes")
        for length in range(12)
    ]
    told: list[float] = []
    exchanges = [tiny.prompter.exchange(request, end=tiny.tokenizer.eos_token_id) for request in asked]
    sizes = {"rows": 3, "row_tokens": 150, "tokens": 1000}
    with torch.inference_mode():
        shared = reply_log_probs(tiny.reader, exchanges, **sizes, share=True, tell=told.append)
        alone = reply_log_probs(tiny.reader, exchanges, **sizes, share=False, tell=told.append)
    np.testing.assert_allclose(shared, alone, atol=1e-4)
    assert shared[:12] == shared[24:36]  # the same reply to the same prompt is read once
    assert told.count(1.0) == 2
    assert len(told) < len(set(map(str, asked)))


def test_a_reply_that_does_not_fit_is_an_error_and_costs_no_other(tiny: TransformersModel) -> None:
    long = ReplyRequest(instruction=INSTRUCTION, prompt="Why?", reply="Yes " * CONTEXT)
    short = replace(long, reply="Yes")
    found = tiny.score_replies([long, short, replace(short, reply="<|im_end|>")])
    assert found[0].error is not None
    assert found[0].error.endswith(f"the limit is {CONTEXT}")
    assert found[1].error is None
    assert found[1].tokens == 2
    assert found[2].tokens > 2  # what a row says is text, never a control token
    fits = found[1].tokens_in + found[1].tokens
    kept, gone = tiny.score_replies([replace(short, max_tokens=fits), replace(short, max_tokens=fits - 1)])
    assert kept == found[1]
    assert gone.error == f"prompt and reply are {fits} tokens, the limit is {fits - 1}"
