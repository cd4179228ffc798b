from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hand_made import carry_out, ingested
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.errors import SourceError
from normloom.core.models.protocol import Turn
from normloom.core.rows.ids import row_id
from normloom.core.stage import Output
from normloom.tasks.prompts.messages import Conversation, Problem, conversation

SYSTEM = {"role": "system", "content": "Be brief."}
HI, HELLO, WHY = (
    {"role": role, "content": text} for role, text in (("user", "Hi"), ("assistant", "Hello"), ("user", "Why?"))
)


def read(path: Path, *records: object, **settings: Any) -> Output:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return carry_out(ingested(path, **settings), None)


def problem(*turns: object, max_chars: int = 1000) -> Problem:
    found = conversation(list(turns), max_chars=max_chars)
    assert isinstance(found, Problem)
    return found


def test_the_last_turn_of_the_user_is_the_prompt_and_what_was_said_before_its_history() -> None:
    assert conversation([SYSTEM, HI, HELLO, WHY], max_chars=100) == Conversation(
        "Why?", (Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Hello"))
    )


def test_a_system_turn_that_is_empty_is_left_out() -> None:
    assert conversation([{"role": "system", "content": " "}, WHY], max_chars=100) == Conversation("Why?", ())


@pytest.mark.parametrize("text", ["Why?", "[" * 100_000])
def test_a_text_that_is_no_json_is_no_conversation(text: str) -> None:
    found = conversation(text, max_chars=100)
    assert found == Problem("not_messages", "expected a list of turns, found text that is not JSON")


def test_what_an_assistant_answered_last_is_left_out() -> None:
    assert conversation([HI, HELLO, WHY, HELLO, {"role": "tool", "content": None}], max_chars=100) == conversation(
        [HI, HELLO, WHY], max_chars=100
    )


def test_share_gpt_s_names_and_a_list_written_as_json_are_read_alike() -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}, {"from": "human", "value": "Why?"}]
    wanted = conversation([HI, HELLO, WHY], max_chars=100)
    assert conversation(turns, max_chars=100) == conversation(json.dumps(turns), max_chars=100) == wanted


def test_text_parts_and_turns_of_one_role_are_joined() -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": "text", "text": "why?"}]}
    assert conversation([HI, parts], max_chars=100) == Conversation("Hi\n\nLook:\nwhy?", ())


@pytest.mark.parametrize(
    ("turns", "rule", "reason"),
    [
        ([SYSTEM, HELLO], "no_user_turn", "no turn of the conversation is the user's"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "not_text", "type 'image_url'"),
        ([{"role": "tool", "content": "4"}, WHY], "unknown_role", "turn 1 has the role 'tool'"),
        ([{"role": "assistant", "content": None}, WHY], "empty", "turn 1 (assistant): the text has no visible"),
        (
            [HI, HELLO, {"role": "user", "content": "bell \x07"}],
            "control_characters",
            "turn 3 (user): control character",
        ),
        (["Hi"], "not_messages", "expected a list of turns"),
        ([{"role": "user", "content": "x" * 60}] * 2, "too_long", "of 2 turns has 120 characters; the limit is 100"),
    ],
)
def test_a_conversation_that_cannot_be_used_says_why(turns: list[object], rule: str, reason: str) -> None:
    found = problem(*turns, max_chars=100)
    assert found.rule == rule
    assert reason in found.reason


TURNS = st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), st.text("ab", min_size=1)), max_size=6)


@given(TURNS)
def test_no_text_before_the_last_turn_of_the_user_is_lost(turns: list[tuple[str, str]]) -> None:
    found = conversation([{"role": role, "content": text} for role, text in turns], max_chars=10_000)
    last = max((place for place, (role, _) in enumerate(turns) if role == "user"), default=None)
    if last is None:
        assert isinstance(found, Problem)
        return
    assert isinstance(found, Conversation)
    said = [*found.history, Turn("user", found.prompt)]
    assert all(one.role != other.role for one, other in pairwise(said))
    for role in ("user", "assistant", "system"):
        texts = [text for each, text in turns[: last + 1] if each == role]
        assert "".join(turn.content for turn in said if turn.role == role).replace("\n\n", "") == "".join(texts)


def test_a_column_of_conversations_is_found_if_there_is_no_text_column_or_taken_if_asked_for(tmp_path: Path) -> None:
    found = read(tmp_path / "a.jsonl", {"conversations": [{"from": "human", "value": "Hi"}]})
    assert found.rows.select("history", "prompt").rows() == [(None, "Hi")]
    record = {"prompt": "A title", "messages": [HI, HELLO, WHY]}
    assert read(tmp_path / "b.jsonl", record).rows["prompt"].to_list() == ["A title"]
    for asked in ({"messages": "messages"}, {"text_column": "messages"}):
        assert read(tmp_path / "b.jsonl", record, **asked).rows["prompt"].to_list() == ["Why?"]
    with pytest.raises(SourceError, match="has no column 'prompt'"):
        read(tmp_path / "c.jsonl", {"said": [HI]})


def test_one_prompt_in_two_conversations_is_two_rows_of_other_ids_and_a_prompt_alone_keeps_its_own(
    tmp_path: Path,
) -> None:
    records = ({"messages": [SYSTEM, WHY]}, {"messages": [HI, HELLO, WHY]}, {"messages": [WHY]})
    made = read(tmp_path / "a.jsonl", *records).rows
    assert made["prompt"].to_list() == ["Why?"] * 3
    assert made["row_id"].n_unique() == 3
    assert made["row_id"][2] == row_id("hand", "ingest", ["Why?"], 0)
    again = read(tmp_path / "b.jsonl", *reversed(records)).rows
    assert again["row_id"].to_list() == made["row_id"].to_list()[::-1]


def test_conversations_that_cannot_be_used_cost_their_rows(tmp_path: Path) -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    made = read(
        tmp_path / "a.jsonl", {"messages": [WHY]}, {"messages": [HELLO]}, {"messages": [image]}, {"messages": None}
    )
    assert made.rows["prompt"].to_list() == ["Why?"]
    assert [(row["rule"], row["reason"].split(":")[0]) for row in made.quarantined.to_dicts()] == [
        ("no_user_turn", "record 2"),
        ("not_text", "record 3"),
        ("missing", "record 4"),
    ]
    assert made.attempts == 4


@pytest.mark.parametrize("name", ["chat.jsonl", "chat.parquet"])
def test_the_case_of_chat_records(shared_data: Path, name: str) -> None:
    path = shared_data / "cases" / "messages_chat" / name
    made = carry_out(ingested(path), None).rows
    records = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
    assert [
        [*history, {"role": "user", "content": prompt}] for history, prompt in made.select("history", "prompt").rows()
    ] == [record["messages"] for record in records]
    assert pl.Series([len(record["messages"]) for record in records]).unique().to_list() == [2, 4]
