"""What a reply says and how it parsed, its length, and the quality that is made of its signals."""

from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normloom.schemas.preference_tables import BAD, BOUNDS, MEASURED, NONE, OK, SIGNAL_NAMES, WORST
from normloom.tasks.preferences.measure import negated, sentences
from normloom.tasks.preferences.parse import parse, response_of
from normloom.tasks.preferences.quality import Length, Quality, Weights, length, quality, ranges


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


def test_weights_are_one_whole() -> None:
    with pytest.raises(ValueError, match=r"together they are 1\.16"):
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
