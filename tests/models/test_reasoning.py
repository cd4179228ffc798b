from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normloom.models.openai.replies.written import answer_of
from normloom.models.requests.reasoning import apart, candidate


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("An answer.", "", "An answer."),
        ("<think>I see.</think>\n\nAn answer.", "I see.", "An answer."),
        ("\n<THINK>\nI see.\n</THINK>An answer.", "I see.", "An answer."),
        ("<think>\n\n</think>\n\nAn answer.", "", "An answer."),
        ("<think>I see, but then", "I see, but then", ""),  # cut off
        ("I see.</think>An answer.", "I see.", "An answer."),  # opened by the chat template
        ("<reasoning>Well.</reasoning> Yes", "Well.", "Yes"),
        ("Write <think> around thoughts and </think> after.", "", "Write <think> around thoughts and </think> after."),
        ("Tags such as <think> begin thoughts.", "", "Tags such as <think> begin thoughts."),
    ],
)
def test_thinking_is_kept_apart(text: str, thought: str, answer: str) -> None:
    assert apart(text) == (thought, answer)


@given(thought=st.text(st.characters(exclude_characters="<>")), answer=st.text(st.characters(exclude_characters="<>")))
def test_nothing_of_it_is_lost_or_mixed(thought: str, answer: str) -> None:
    assert apart(f"<think>{thought}</think>{answer}") == (thought.strip(), answer.lstrip())
    assert apart(answer) == ("", answer)


def test_what_the_engine_kept_apart_comes_first() -> None:
    made = candidate(text="<think>b</think>c", seed=1, finish="stop", tokens_out=3, reasoning=" a ")
    assert (made.reasoning, made.text) == ("a\n\nb", "c")


@pytest.mark.parametrize(
    ("text", "answers", "place"),
    [
        ("Yes", ("Yes", "No"), 0),
        ("\n **no**.", ("Yes", "No"), 1),
        ("Yes, since it is safe.", ("Yes", "No"), 0),
        ("The answer is: No", ("Yes", "No"), 1),
        ("Yes and no", ("Yes", "No"), None),
        ("I cannot say.", ("Yes", "No"), None),
        ("", ("Yes", "No"), None),
        ("b", ("A", "B", "b"), 2),
        ("B) food", ("A", "B", "b"), 1),
        ("I think it is A", ("A", "B", "I"), 2),  # of single letters only the first word counts
        ("It is A", ("A", "B"), None),
        ("Nothing", ("Yes", "No"), None),
    ],
)
def test_an_answer_is_read_from_what_is_written(text: str, answers: tuple[str, ...], place: int | None) -> None:
    assert answer_of(text, answers) == place
