"""A request that a model cannot answer costs its row, in the steps that ask about people, replies and memes."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from hand_made import Answerer, Writer

from normloom.core.errors import SourceError
from normloom.core.stage import Output
from normloom.readers import locate
from normloom.schemas.training.preference_tables import MEASURED
from normloom.tasks.alignx.answers import Answering, answer
from normloom.tasks.cultural.answers import ScoredAnswers, answer_scored
from normloom.tasks.cultural.grid import Cells, grid
from normloom.tasks.personas.assist import Assisting, assistance
from normloom.tasks.preferences.evaluation import read_evaluated
from normloom.tasks.preferences.replies import Replying, read_replies, reply

PROMPTS = pl.DataFrame(
    {
        "row_id": ["1", "2"],
        "prompt_id": ["p1", "p2"],
        "dialogue": ["d1", "d2"],
        "split": "train",
        "persona": ["I like tea.", "I like very long walks."],
        "context": ["User1: Hello"] * 2,
    }
)


def test_a_prompt_that_is_too_long_has_no_reply() -> None:
    writer = Writer(last='{"response": "Yes."}', too_long="very long")
    assert_one_lost(reply.function(PROMPTS, Replying(), writer, generator="g"))


def test_a_user_whose_facts_are_too_long_has_no_assistance() -> None:
    users = pl.DataFrame({"row_id": ["1", "2"], "username": ["ada", "bob"], "classification_task": "Likes tea?"})
    facts = pl.DataFrame(
        {"row_id": ["f1", "f2"], "username": ["ada", "bob"], "task": "Leisure", "topic": "Hobby"}
        | {"relation": "likes", "object": ["tea", "very long walks"]}
    )
    writer = Writer(last='{"score": 1, "reason": "x", "facts": [1]}', too_long="very long")
    assert_one_lost(assistance.function(users, Assisting(), facts, writer))


def test_a_meme_that_is_too_long_has_no_answer() -> None:
    items = pl.DataFrame(
        {"item_id": ["1:en", "2:en"], "meme_id": ["1", "2"], "language": "en", "country": "us", "split": "test"}
        | {"template": ["t", "u"], "text": ["short", "very long"], "translation": None, "hateful": 0},
        schema_overrides={"translation": pl.String},
    ).with_columns(row_id="item_id")
    asked = grid.function(items, Cells(shots=("zero",)), pl.DataFrame(schema={"item_id": pl.String})).rows
    asked = asked.with_columns(row_id=pl.format("{}", pl.int_range(pl.len())))
    made = answer_scored.function(
        asked, ScoredAnswers(), Answerer(lambda *_: (0.5, 0.5), too_long="very long"), entrant="m"
    )
    lost = asked.filter(pl.col("meme_id") == "2")["row_id"].to_list()
    assert made.quarantined["row_id"].to_list() == lost
    assert made.rows.height == asked.height - len(lost) > 0


def test_a_test_prompt_that_is_too_long_has_no_reply() -> None:
    rows = pl.DataFrame(
        {"row_id": ["1", "2"], "prompt_id": ["p1", "p2"], "axis": "kind", "history": None}
        | {"prompt": ["Why?", "A very long story."]}
    )
    assert_one_lost(answer.function(rows, Answering(), Writer(last="So.", too_long="very long"), system="base"))


def assert_one_lost(made: Output) -> None:
    assert made.rows["row_id"].to_list() == ["1"]
    assert made.quarantined.select("row_id", "reason").rows() == [("2", "the prompt does not fit")]


@pytest.mark.parametrize("read", [read_evaluated.function, partial(read_replies.function, limited=False)])
def test_replies_to_prompts_that_nobody_asked_are_refused(read: Callable[..., Output], tmp_path: Path) -> None:
    path = tmp_path / "replies.csv"
    path.write_text(
        f"gen_id,prompt_id,policy,model,raw_reply,{','.join(MEASURED)}\ng,p9,m,m,Yes{',1' * len(MEASURED)}\n"
    )
    with pytest.raises(SourceError, match=r"replies.csv: none of 1 replies (answers|belongs to) one of 2 prompts"):
        read(PROMPTS, source=locate(str(path)))


def test_replies_to_prompts_beyond_the_limit_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    told = [
        {"gen_id": prompt or "none", "prompt_id": prompt, "model": "m", "raw_reply": "Yes"}
        for prompt in ("p1", "p9", None)
    ]
    path.write_text("\n".join(map(json.dumps, told)))
    made = {
        limited: read_replies.function(PROMPTS, source=locate(str(path)), limited=limited) for limited in (True, False)
    }
    assert [one.rows["gen_id"].to_list() for one in made.values()] == [["p1"], ["p1"]]
    assert made[True].quarantined["rule"].to_list() == ["missing"]
    assert made[False].quarantined["rule"].to_list() == ["unknown_prompt", "missing"]
