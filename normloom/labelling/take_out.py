"""Answers about rows that people took back: removed by a purge, and looked for in what is left."""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from pathlib import Path

from normloom.core.rows.forgotten import DenyList, strings
from normloom.labelling.answers import Answer
from normloom.labelling.book import FOLDER, books
from normloom.store.store import Store


def take_out(store: Store, deny: DenyList, ids: Set[str], quotes: Sequence[str]) -> list[Path]:
    """Remove all answers about rows, and those that have or quote a forgotten text; return the files that are gone."""

    def hit(answer: Answer) -> bool:
        said = list(strings(answer.value))
        return (
            answer.row in ids
            or deny.why_text(said) is not None
            or any(quote in text for quote in quotes for text in said)
        )

    return [path for book in books(store) for path in book.take_out(hit)]


def answers_about(path: Path, ids: Set[str]) -> int:
    """Return how many answers in a file are about one of the rows; 0 for a file that is no record of answers."""
    if path.suffix != ".json" or FOLDER not in path.parts:
        return 0
    try:
        answers = json.loads(path.read_bytes())["answers"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return sum(answer.get("row") in ids for answer in answers)
