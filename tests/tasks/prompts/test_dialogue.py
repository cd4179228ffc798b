"""What is said before a prompt."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from normloom.schemas import tables
from normloom.tasks.prompts.dialogue import said_by_user

TURN = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=3)})
ROW = st.tuples(st.none() | st.lists(TURN, max_size=4), st.text(max_size=3))


@given(rows=st.lists(ROW, max_size=5))
def test_a_user_says_the_own_turns_and_the_prompt(rows: list[tuple[list[dict[str, str]] | None, str]]) -> None:
    frame = pl.DataFrame(rows, schema={"history": tables.MESSAGES, "prompt": pl.String}, orient="row")
    said = [
        "\n".join([*(turn["content"] for turn in before or [] if turn["role"] == "user"), last])
        for before, last in rows
    ]
    assert said_by_user(frame).to_list() == said
    assert said_by_user(frame.drop("history")).to_list() == frame["prompt"].to_list()
