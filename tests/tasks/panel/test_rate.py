"""Ratings by a model that speaks for a person."""

from __future__ import annotations

import json
import math

import polars as pl
import pytest
from hand_made import ANY, Answerer, carry_out
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.errors import ConfigError
from normloom.core.stage import Output
from normloom.schemas.people import demo_tables
from normloom.schemas.template import Template, load_template
from normloom.tasks.panel.rate import Answers, Rating, described, probabilities, rate
from normloom.testing.toy import SCRIPTED

ASK = Template(
    name="ask", sections={"instruction": "Judge.", "context": "<$prompt>", "question": "$person: $no, $unsure, $yes?"}
)


def request(item: str, gender: str | None, **others: object) -> dict[str, object]:
    return {
        "row_id": f"{item} {gender}",
        "parents": [],
        "item_id": item,
        "rater_gender": gender,
        "group": gender or "unknown",
        "prompt": f"text of {item}",
        "context": "",
        "response": "",
        "labels": [],
        "weight": 1,
        "origin": "source",
        "fingerprint": 0,
        **others,
    }


def requests(*rows: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=demo_tables.UNIQUE.schema)


def asked(model: Answerer, *rows: dict[str, object], **settings: object) -> Output:
    stage = rate(ANY, Rating(template=ASK, **settings), SCRIPTED, rater="m1")
    return carry_out(stage, requests(*rows), model=model)


def test_all_persons_are_asked_about_a_conversation_in_one_request() -> None:
    model = Answerer(lambda _, question: (0.2, 0.2, 0.6) if "Woman" in question else (0.5, 0.3, 0.2))
    made = asked(model, request("a", "Woman"), request("b", "Man"), request("a", "Man"))
    assert [(each.context, each.questions) for each in model.requests] == [
        ("<text of a>", ("gender: Woman: No, Maybe, Yes?", "gender: Man: No, Maybe, Yes?")),
        ("<text of b>", ("gender: Man: No, Maybe, Yes?",)),
    ]
    assert model.requests[0].answers == ("No", "Maybe", "Yes")
    rows = {row["parents"][0]: row for row in made.rows.to_dicts()}
    assert rows["a Woman"]["rating"] == pytest.approx(0.6 + 0.2 / 2)
    assert rows["a Man"]["rating"] == rows["b Man"]["rating"] == pytest.approx(0.2 + 0.3 / 2)
    assert [rows[name]["answer"] for name in ("a Woman", "a Man", "b Man")] == ["Yes", "No", "No"]
    assert {row["rater"] for row in rows.values()} == {"m1"}
    assert made.tokens_in == 20


def test_probabilities_are_shares_of_the_three_answers_alone() -> None:
    made = asked(Answerer(lambda *_: (0.02, 0.01, 0.05)), request("a", None))  # the rest is on other tokens
    [row] = made.rows.to_dicts()
    assert (row["p_no"], row["p_unsure"], row["p_yes"]) == pytest.approx((0.25, 0.125, 0.625))


def test_of_equal_answers_the_first_is_taken() -> None:
    assert asked(Answerer(lambda *_: (0.4, 0.2, 0.4)), request("a", None)).rows["answer"].to_list() == ["No"]


def test_what_a_model_cannot_read_is_put_aside_for_all_its_persons() -> None:
    model = Answerer(lambda *_: (0.5, 0.3, 0.2), too_long="of a")
    made = asked(model, request("a", "Woman"), request("b", "Man"), request("a", "Man"))
    assert made.rows["item_id"].to_list() == ["b"]
    assert made.quarantined.select("row_id", "rule", "reason").rows() == [
        ("a Woman", "model", "the context does not fit"),
        ("a Man", "model", "the context does not fit"),
    ]
    assert json.loads(made.quarantined["payload"][0])["group"] == "Woman"


def test_another_wording_of_the_answers_is_what_the_model_is_asked_for() -> None:
    model = Answerer(lambda *_: (0.1, 0.1, 0.8))
    asked(model, request("a", None), answers=Answers(no="A", unsure="B", yes="C"))
    assert model.requests[0].answers == ("A", "B", "C")
    assert model.requests[0].questions == ("no particular person: A, B, C?",)


@pytest.mark.parametrize(
    ("person", "words"),
    [
        (("Woman", "White", "gen z"), "gender: Woman; race or ethnicity: White; age: gen z"),
        ((None, "White", None), "race or ethnicity: White"),
        ((None, None, None), "no particular person"),
    ],
)
def test_a_person_is_described_by_what_is_known(person: tuple[str | None, ...], words: str) -> None:
    assert described(*person) == words


@given(st.lists(st.tuples(*[st.floats(-800, 0)] * 3), min_size=1, max_size=5))
def test_probabilities_add_up_whatever_their_size(logprobs: list[tuple[float, ...]]) -> None:
    shares = probabilities(logprobs)
    assert shares.sum(axis=1) == pytest.approx(1)
    for line, logs in zip(shares, logprobs, strict=True):
        assert line[0] / line.max() == pytest.approx(math.exp(logs[0] - max(logs)))


def test_the_template_asks_about_person_and_conversation() -> None:
    template = load_template("rate", needs=("instruction", "context", "question"))
    assert "PROMPT" in template.render("context", prompt="PROMPT")
    question = template.render("question", person="PERSON", no="N", unsure="U", yes="Y")
    assert all(word in question for word in ("PERSON", "N, U or Y"))
    with pytest.raises(ConfigError):
        template.render("question", person="PERSON")
