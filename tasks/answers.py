"""What stages make of a model's answers: rows that have one, those for which it returned an error, and the tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import polars as pl

from normloom.core.models.protocol import Completion, Scores
from normloom.core.stage import Output, quarantined_frame, unanswered

_Asked = TypeVar("_Asked", dict[str, Any], pl.DataFrame)
_Answer = TypeVar("_Answer", Completion, Scores)


@dataclass(frozen=True)
class Answered(Generic[_Asked, _Answer]):
    """What was asked about with its answer, the quarantine's entries of what was not answered, and the tokens."""

    pairs: list[tuple[_Asked, _Answer]]
    failed: list[dict[str, str | None]]
    tokens_in: int
    tokens_out: int

    def output(self, rows: pl.DataFrame) -> Output:
        """Return what the stage made of the answers, with the rows that have none as quarantined."""
        failed = quarantined_frame(self.failed)
        return Output(rows=rows, quarantined=failed, tokens_in=self.tokens_in, tokens_out=self.tokens_out)


def answered(asked: Iterable[_Asked], answers: Sequence[_Answer]) -> Answered[_Asked, _Answer]:
    """Return what was asked about, rows or frames of rows that share a request, with the answers in the same order."""
    pairs, failed = [], []
    for about, answer in zip(asked, answers, strict=True):
        if answer.error is None:
            pairs.append((about, answer))
        else:
            rows = about.iter_rows(named=True) if isinstance(about, pl.DataFrame) else [about]
            failed += [unanswered(row, answer) for row in rows]
    drafts = (draft for answer in answers if isinstance(answer, Completion) for draft in answer.candidates)
    return Answered(
        pairs, failed, sum(answer.tokens_in for answer in answers), sum(draft.tokens_out for draft in drafts)
    )
