"""What a reply says and how it parsed, its length, and the quality that is made of its signals."""

from __future__ import annotations

import json
from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.models.protocol import Completion, GenerateRequest, ScoreRequest, Scores
from normloom.core.stage import Output
from normloom.schemas.training.preference_tables import BAD, BOUNDS, MEASURED, NONE, OK, SIGNAL_NAMES, WORST
from normloom.tasks.preferences.judge_entailment import Entailment, judge_entailment
from normloom.tasks.preferences.measure import Measuring, measure, negated, sentences
from normloom.tasks.preferences.pair_figures import reply_figures
from normloom.tasks.preferences.pairs import Pairing
from normloom.tasks.preferences.parse import parse, replies_in, response_of
from normloom.tasks.preferences.quality import Length, Quality, Weights, length, quality, ranges
from normloom.testing import embedder


def replies(*raw: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row_id": [f"r{place}" for place in range(len(raw))],
            "parents": [["p"] for _ in raw],
            "gen_id": [f"g{place}" for place in range(len(raw))],
            "prompt_id": ["p0"] * len(raw),
            "dialogue": ["d0"] * len(raw),
            "model": ["m"] * len(raw),
            "raw_reply": list(raw),
            "seconds": [None] * len(raw),
        }
    )


@pytest.mark.parametrize(
    ("raw", "status", "text"),
    [
        ('{"response": "Yes."}', OK, "Yes."),
        ('Sure: {"a": 1} and {"response": "Yes."} {"response": "No."}', OK, "Yes."),  # the first that has the key
        ('{"response": "cut of', BAD, "cut of"),
        ('{"response": "a\nb"}', BAD, 'a\nb"}'),  # a line feed in a JSON text is none
        ('{"response": ["a", 1]}', BAD, '["a", 1]'),  # a value that is no text can be rejected, never chosen
        ('{"response": null}', BAD, "null"),
        ('{"answer": "Yes."}', NONE, None),
        ("Yes.", NONE, None),
        ("", NONE, None),
        ('{"outer": {"response": "inner"}}', OK, "inner"),
    ],
)
def test_a_reply_is_parsed_as_the_authors_code_does(raw: str, status: str, text: str | None) -> None:
    assert response_of(raw) == (status, text)


WITHOUT_BRACES = st.text(st.characters(exclude_characters="{}"))


@given(WITHOUT_BRACES, WITHOUT_BRACES)
def test_what_was_written_as_json_is_read_back(text: str, before: str) -> None:
    assert response_of(f"{before}{json.dumps({'response': text})}") == (OK, text)


def test_the_bonus_is_tested_on_the_text_or_on_the_raw_reply() -> None:
    parsed = parse.function(
        replies(
            '{"response": "one two three"}',
            '{"response": "one two three four five"}{"response": "x"}',
            '{"response": "a b c d',
            "nothing",
        )
    )
    assert parsed["parse_status"].to_list() == [OK, OK, BAD, NONE]
    published = length.function(parsed, Length()).rows
    assert published["gen_id"].to_list() == ["g0", "g1", "g2"]
    assert published["value"].to_list() == [0.938, 0.938, 1.0]  # 3, 5 and 4 words about an average of 4
    assert published["bonus"].to_list() == [False, False, False]
    raw = length.function(parsed, Length(bonus_tested_on="raw")).rows
    assert raw["value"].to_list() == [1.238, 0.938, 1.0]  # the second has two objects
    valid = length.function(parsed, Length(failures="left_out")).rows
    assert valid["value"].to_list() == [0.938, 0.938, 1.0]  # the average of 3 and 5 is 4 as well


def scored(rules: Quality) -> pl.DataFrame:
    parsed = parse.function(replies('{"response": "a b"}', '{"response": "a b c d"}', '{"response": "a b c', "none"))
    values = {"g0": (1.0, 1.0, 2.0, 0.5), "g1": (0.5, 0.0, 0.0, 0.25), "g2": (None,) * 4}
    measured = pl.DataFrame(
        [
            {"row_id": f"s{gen}{name}", "gen_id": gen, "signal": name, "value": value, "worst": WORST[name]}
            | {"low": BOUNDS[name][0], "high": BOUNDS[name][1], "bonus": None, "source": "test"}
            for gen, row in values.items()
            for name, value in zip(MEASURED, row, strict=True)
        ],
        schema_overrides={"bonus": pl.Boolean},
    )
    lengths = length.function(parsed, Length(failures=rules.failures)).rows.select(measured.columns)
    signals = [measured, lengths]
    found = ranges.function(pl.concat(signals), rules, parsed).rows
    made = quality.function(parsed, rules, found, *signals)
    assert made.rows.height + made.dropped.height == parsed.height
    return made.rows


def test_quality_is_the_weighted_sum_of_scaled_signals_and_the_length_as_it_is() -> None:
    rows = scored(Quality())
    assert rows["gen_id"].to_list() == ["g0", "g1", "g2"]
    assert rows.select(SIGNAL_NAMES).rows() == [
        (1.0, 1.0, 1.0, 1.0, 0.889),  # 2 words of an average of 3
        (0.5, 0.5, 0.0, 0.5, 0.889),
        (0.0, 0.0, 0.0, 0.0, 1.0),
    ]
    assert rows["quality"].to_list() == pytest.approx([0.68 + 0.32 * 0.889, 0.25 + 0.32 * 0.889, 0.32])
    scaled = scored(Quality(length_scaled="min_max"))
    assert scaled["length_format"].to_list() == [0.0, 0.0, 1.0]


def test_replies_that_did_not_parse_may_be_left_out_of_the_scores() -> None:
    rows = scored(Quality(failures="left_out"))
    assert rows["gen_id"].to_list() == ["g0", "g1"]
    assert rows["consistency"].to_list() == [1.0, 0.0]  # scaled over those that are left


@pytest.mark.parametrize(
    ("persona", "response", "value"),
    [
        ("I like tea.", "I like tea.", 1.0),
        ("I like tea.", "I do not like tea.", -1.0),
        ("I like tea.", "Blue sky!", 0.0),
        ("", "I like tea.", 0.0),
    ],
)
def test_what_our_own_signals_make_of_a_persona(persona: str, response: str, value: float) -> None:
    parsed = parse.function(replies(json.dumps({"response": response})))
    prompts = pl.DataFrame({"prompt_id": ["p0"], "persona": [persona], "context": ["Tea?"], "reference": [None]})
    made = measure.function(parsed, Measuring(), prompts, embedder(), encoder="e").rows
    assert dict(made.select("signal", "value").iter_rows())["consistency"] == value


def test_no_reply_that_is_scored_has_no_quantile() -> None:
    parsed = parse.function(replies("none"))
    nothing = pl.DataFrame(schema={"bonus_fired": pl.Boolean, "quality": pl.Float64})
    figures = reply_figures.function(parsed, Pairing(), nothing).rows
    assert figures.filter(metric="scored")["value"].to_list() == [0]
    assert figures.filter(pl.col("metric").is_in(["average_words", "quality_quantile"])).is_empty()


def test_weights_are_one_whole() -> None:
    with pytest.raises(ValueError, match=r"must add up to 1, not 1\.16"):
        Weights(coherence=0.3)


def test_a_persona_is_cut_into_its_sentences_and_negations_are_found() -> None:
    assert sentences("I like tea.I don't fly. I am 4.5 feet tall.") == [
        "I like tea.",
        "I don't fly.",
        "I am 4.5 feet tall.",
    ]
    assert [negated(text) for text in ("I dont fly", "I can't", "I never do", "Knots are notable")] == [
        *(True, True, True),
        False,
    ]


class Judge:
    """Answers every question about every reply as it was told to."""

    def __init__(self, *lines: tuple[float, ...], error: str | None = None) -> None:
        self.lines, self.error = lines, error
        self.asked: list[ScoreRequest] = []

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scores]:
        self.asked += requests
        return [Scores(logprobs=self.lines, tokens_in=3, error=self.error) for _ in requests]

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        raise NotImplementedError


def judged(judge: Judge, *, reference: str | None = "User2: Tea.") -> Output:
    parsed = parse.function(replies('{"response": "Tea."}', '{"response": "cut'))
    prompts = pl.DataFrame(
        {"prompt_id": ["p0"], "persona": ["I like tea. I swim."], "reference": [reference]},
        schema_overrides={"reference": pl.String},
    )
    return judge_entailment.function(parsed, Entailment(), prompts, judge, judge="j")


SAYS_SAME, SAYS_NOT, SAYS_NEITHER = (-0.1, -3.0, -3.0), (-3.0, -0.1, -3.0), (-3.0, -3.0, -0.1)


@pytest.mark.parametrize(
    ("lines", "values"),
    [
        ((SAYS_NEITHER, SAYS_SAME, SAYS_SAME), (1.0, 2.0)),
        ((SAYS_NOT, SAYS_SAME, SAYS_NEITHER), (1.0, 1.0)),
        ((SAYS_NOT, SAYS_NEITHER, SAYS_SAME), (-1.0, 0.0)),
        ((SAYS_NEITHER, SAYS_NEITHER, SAYS_SAME), (0.0, 0.0)),
    ],
)
def test_a_judge_says_what_a_reply_makes_of_persona_and_reference(
    lines: tuple[tuple[float, ...], ...], values: tuple[float, float]
) -> None:
    judge = Judge(*lines)
    made = judged(judge).rows
    valid = made.filter(gen_id="g0")
    assert valid["signal"].to_list() == ["consistency", "utterance_entailment"]
    assert tuple(valid["value"]) == values
    assert set(made["source"]) == {"asked (j)"}
    assert made.filter(gen_id="g1")["value"].null_count() == 2  # it did not parse
    [asked] = judge.asked
    assert ["I like tea." in question for question in asked.questions] == [True, False, False]
    assert "User2" not in asked.questions[2]


def test_a_judge_without_a_reference_or_an_answer() -> None:
    assert judged(Judge(SAYS_SAME, SAYS_NEITHER), reference=None).rows["value"].to_list()[:2] == [1.0, 1.0]
    failed = judged(Judge(error="too long"))
    assert failed.quarantined["reason"].to_list() == ["too long"] * 2
    assert failed.rows["gen_id"].unique().to_list() == ["g1"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ('{"response": "a"}', 1),
        ('so {"response": "a"} and {"response": "b"}', 2),
        ('{"outer": {"response": "a"}}', 0),  # the object has no response, and what is in it is a part of it
        ('{"other": 1} {"response": {"deep": 1}}', 1),
        ('{"response": "cut {"response": "a"}', 1),
        ("no JSON at all", 0),
    ],
)
def test_json_objects_with_a_response_are_counted(text: str, number: int) -> None:
    assert replies_in(text) == number
