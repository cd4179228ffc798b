from __future__ import annotations

import polars as pl

from normloom.core.models.protocol import Candidate, Completion, Scores
from normloom.tasks.answers import answered

ROWS = [{"row_id": "a"}, {"row_id": "b"}, {"row_id": "c"}]


def test_rows_without_an_answer_are_quarantined_and_every_token_is_counted() -> None:
    drafts = tuple(Candidate(text=text, seed=1, finish="stop", tokens_out=2) for text in ("x", "y"))
    answers = [
        Completion(candidates=drafts, tokens_in=5),
        Completion(candidates=(), tokens_in=3, error="refused"),
        Completion(candidates=(), tokens_in=0, error="timed out", transient=True),
    ]
    outcome = answered(ROWS, answers)
    assert outcome.pairs == [(ROWS[0], answers[0])]
    made = outcome.output(pl.DataFrame({"row_id": ["a", "a"]}))
    assert (made.tokens_in, made.tokens_out) == (8, 4)
    assert made.quarantined.select("row_id", "rule", "reason").rows() == [
        ("b", "model", "refused"),
        ("c", "outage", "timed out"),
    ]


def test_rows_that_share_a_request_share_its_fate() -> None:
    first, second = pl.DataFrame(ROWS[:1]), pl.DataFrame(ROWS[1:])
    answers = [Scores(logprobs=((-0.1, -2.0),), tokens_in=4), Scores(logprobs=(), tokens_in=1, error="refused")]
    outcome = answered([first, second], answers)
    [(group, scores)] = outcome.pairs
    assert group is first
    assert scores == answers[0]
    made = outcome.output(pl.DataFrame())
    assert (made.tokens_in, made.tokens_out) == (5, 0)
    assert made.quarantined["row_id"].to_list() == ["b", "c"]
