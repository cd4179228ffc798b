from __future__ import annotations

import math
import re

import pytest
from pydantic import SecretStr, ValidationError

from normloom.models.openai.options import Options
from normloom.models.openai.replies.failures import ServerFailures
from normloom.models.openai.replies.reply import Position, Reply, answer_logprobs


def place(drawn: str, **listed: float) -> Position:
    """Return a place at which tokens have these probabilities; `_` begins those with a blank."""
    entries = [{"token": token.replace("_", " "), "logprob": math.log(p)} for token, p in listed.items()]
    probability = listed.get(drawn, 1e-6)
    return Position.model_validate({"token": drawn, "logprob": math.log(probability), "top_logprobs": entries})


def read(found: Position, *answers: str) -> list[float]:
    logprobs = answer_logprobs([found], answers)
    assert logprobs is not None
    return [math.exp(value) for value in logprobs]


def test_listed_answers_have_their_probabilities() -> None:
    assert read(place("Yes", Yes=0.6, No=0.3, yes=0.05), "No", "Yes") == pytest.approx([0.3, 0.6])


def test_equal_spellings_are_added() -> None:
    twice = Position.model_validate(
        {
            "token": "Yes",
            "logprob": math.log(0.5),
            "top_logprobs": [{"token": token, "logprob": math.log(0.25)} for token in ("Yes", "Yes", "No")],
        }
    )
    assert read(twice, "Yes", "No") == pytest.approx([0.5, 0.25])
    assert read(place("Yes", Yes=0.5, _Yes=0.2, No=0.1), "Yes", "No") == pytest.approx([0.7, 0.1])


@pytest.mark.parametrize(
    ("listed", "most"),
    [
        ({"Yes": 0.4, "A": 0.3, "B": 0.1}, 0.1),  # no more than the least likely of the listed
        ({"Yes": 0.8, "A": 0.15}, 0.05),  # no more than is left over
        ({"Yes": 1.0}, 0.0),
    ],
)
def test_an_unlisted_answer_has_the_most_it_can_have(listed: dict[str, float], most: float) -> None:
    assert read(place("Yes", **listed), "Yes", "No") == pytest.approx([listed["Yes"], most], abs=1e-9)


def test_an_unlikely_token_that_was_drawn_bounds_nothing() -> None:
    assert read(place("Odd", Yes=0.5, A=0.1, Odd=0.001), "Yes", "No") == pytest.approx([0.5, 0.1])


def test_blanks_before_an_answer_do_not_count() -> None:
    spaced = place("_Yes", _Yes=0.6, Yes=0.1, _No=0.2)
    assert read(spaced, "Yes", "No") == pytest.approx([0.7, 0.2])
    assert answer_logprobs([place("\n", **{"\n": 0.9}), spaced], ("Yes", "No")) == answer_logprobs(
        [spaced], ("Yes", "No")
    )
    assert answer_logprobs([place("Well", Well=0.9), spaced], ("Yes", "No")) is None  # that place is of another word


def test_no_listed_answer_is_no_score() -> None:
    assert answer_logprobs([place("A", A=0.5, _Maybe=0.2)], ("Yes", "No")) is None
    assert answer_logprobs([place("\n", **{"\n": 0.9})], ("Yes", "No")) is None  # nothing but blanks
    assert answer_logprobs([Position(token="Yes", logprob=0)], ("Yes", "No")) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"choices": []}',
        '{"choices": [{"text": "of a completion"}]}',
        '{"choices": [{"message": {"content": 3}}]}',
        '{"choices": [{"message": {}, "logprobs": {"content": [{"token": "a", "logprob": NaN}]}}]}',
        '{"error": {"message": "with status 200"}}',
    ],
)
def test_what_is_no_chat_completion_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Reply.model_validate_json(text)


def test_what_an_endpoint_leaves_out_counts_nothing() -> None:
    reply = Reply.model_validate_json('{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}')
    assert reply.choice.message.content is None
    assert (reply.used.prompt_tokens, reply.used.completion_tokens, reply.used.cached_tokens) == (0, 0, 0)
    told = Reply.model_validate_json(
        '{"choices": [{"message": {}}], "usage": {"prompt_tokens": 9, "prompt_tokens_details": null}}'
    )
    assert (told.used.prompt_tokens, told.used.cached_tokens) == (9, 0)


BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ([{"error": {"message": "no such thing"}}], r"the endpoint refuses the request \(400: no such thing\)"),
        ([{"message": "no such thing"}], r"the endpoint refuses the request \(400: no such thing\)"),
        ({"message": "no", "param": "model"}, r"does not take 'model' as it is set \(400: no\); change the setting"),
    ],
)
def test_an_error_in_a_list_and_a_field_without_a_cure(error: object, said: str) -> None:
    failures = ServerFailures("m", Options(), SecretStr(""))
    assert re.search(said, str(failures.refusal(400, error, {}, BODY)))
