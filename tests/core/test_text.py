"""Rules on single texts and the form for comparison."""

import sys

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.rows.text import counted, exact, normalise, shown, text_problem


@pytest.mark.parametrize(
    ("text", "rule", "reason"),
    [
        (None, "missing", "no text"),
        ("", "empty", "no visible"),
        (" \t\r\n\u3000\u00a0", "empty", "no visible"),
        ("\u200b\ufeff\u200d", "empty", "no visible"),
        ("a" * 11, "too_long", "11 characters; the limit is 10"),
        ("ab\x00c", "control_characters", "U+0000 at character 3"),
        ("\x1b[31m", "control_characters", "U+001B at character 1"),
        ("a\x7f", "control_characters", "U+007F at character 2"),
        ("a\x85b", "control_characters", "U+0085 at character 2"),
        ("a\ud83d", "lone_surrogate", "U+D83D at character 2"),
        ("\udfffa", "lone_surrogate", "U+DFFF at character 1"),
    ],
)
def test_a_text_that_cannot_be_used_is_named(text: str | None, rule: str, reason: str) -> None:
    problem = text_problem(text, max_chars=10)
    assert problem is not None
    assert problem[0] == rule
    assert reason in problem[1]


@pytest.mark.parametrize(
    "text",
    [
        "a" * 40,
        "line\nline\r\n\tindented",
        "كيف أطلب المساعدة؟",
        "\u202bשלום\u202c עולם",
        "👩‍👩‍👧‍👦 🇳🇵",
        "किसान मेला",
        "e\u0301a\u0308 Z\u0351\u036b\u0343",
        "\ufefftext after a mark",
    ],
)
def test_every_script_is_fine(text: str) -> None:
    assert text_problem(text, max_chars=40) is None


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  How \n do\tI?  ", "how do i?"),
        ("ＦＵＬＬ　width", "full width"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("e\u0301", "é"),
        ("ﬁne", "fine"),
        ("", ""),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    assert normalise(text) == normal


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


def test_ascii_and_general_path_agree() -> None:
    text = "".join(map(chr, range(128)))
    assert normalise(text + "\u00e9") == normalise(text + "e").removesuffix("e") + "\u00e9"


def test_every_single_character_can_be_judged() -> None:
    for point in range(0, sys.maxunicode, 97):
        text_problem(chr(point), max_chars=1)


@pytest.mark.parametrize(
    ("value", "text"),
    [("a.csv", "'a.csv'"), (None, "None"), (pl.DataFrame({"a": [1]}), "a polars.DataFrame"), ([1] * 99, "a list")],
)
def test_a_message_shows_a_short_value_and_the_type_of_a_long_one(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1_234, "1,234 rows")])
def test_counts_agree_with_their_nouns(number: int, text: str) -> None:
    assert counted(number) == text
    assert counted(number, "source row") == text.replace("row", "source row")


@pytest.mark.parametrize(
    ("number", "said"),
    [(7.0, "7"), (0.1, "0.1"), (20_261_130, "20261130"), (1_234_567.25, "1234567.25"), (-0.5, "-0.5")],
)
def test_numbers_are_written_as_by_hand(number: float, said: str) -> None:
    assert exact(number) == said


@given(st.floats(allow_nan=False) | st.integers())
def test_a_number_that_was_written_reads_back_as_the_same(number: float) -> None:
    assert float(exact(number)) == float(number)
