"""`ask`: publish a queue of rows for people, wait until it is answered, and continue with the answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from pydantic import ValidationError

from normloom.core.errors import ConfigError, WaitingError
from normloom.core.fan_out import each
from normloom.core.stage import Output, Stage, dropped_rows
from normloom.labelling.answers import shown_digest
from normloom.labelling.asking import QUEUE_COLUMNS, Asking, Order
from normloom.labelling.questions import Question
from normloom.labelling.seen import Labels
from normloom.schemas.people import label_tables
from normloom.steps.step import step
from normloom.tasks.labels.orders import ordered


def ask(  # noqa: PLR0913  # what a queue is, by name
    rows: Stage | Sequence[Stage],
    labels: Stage,
    *,
    show: Sequence[str],
    order: Order = "random",
    by: str | None = None,
    threshold: float = 0.5,
    take: int | None = None,
    people: int = 1,
    need: int | None = None,
    seed: int = 0,
    about: str | None = None,
) -> Stage:
    """Ask people about rows: return the rows with a column for each question of `labels`, once they are answered.

    The build publishes a queue (stage `ask_NAME`) and exits with 3 while rows wait: "40 rows wait for answers:
    normloom label NAME". The next build continues with the answers. `show` names the columns that people see; an answer
    counts only for what was shown when it was given. `Asking` has the other arguments. If several people answer a row,
    a choice is the majority's (null on a tie), a number the mean, several options are those that more than half chose.
    Raises ConfigError for arguments that contradict each other.
    """
    book = labels.values.get("labels")
    if not isinstance(book, Labels):
        raise ConfigError(f"ask: the second argument must be nl.labels(...), not the stage {labels.name!r}")
    try:
        args = Asking(
            name=book.name,
            asks=book.asks,
            show=tuple(show),
            order=order,
            by=by,
            threshold=threshold,
            take=take,
            people=people,
            need=need,
            seed=seed,
            about=about,
        )
    except ValidationError as error:
        raise ConfigError(f"ask {book.name!r}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
    return answered(queue(rows, args), args, labels)


@step(makes=label_tables.QUEUE, name="ask_{name}", fan_out=each())
def queue(rows: pl.DataFrame, args: Asking) -> Output:
    """Return the rows to ask about, in their order; the others are dropped."""
    reserved = [name for name in (*QUEUE_COLUMNS, *args.asks.questions, "answers") if name in rows.columns]
    if reserved:
        raise ConfigError(
            f"ask {args.name!r}: column {reserved[0]!r} is also a name of the queue or of a question; rename it"
        )
    about = args.about or "row_id"
    for argument, names in (("show", args.show), ("about", (about,))):
        if unknown := [name for name in names if name not in rows.columns]:
            available = ", ".join(name for name in rows.columns if name not in {"row_id", "parents"})
            raise ConfigError(f"ask {args.name!r}: unknown column {unknown[0]!r} in {argument}; available: {available}")
    chosen = ordered(rows, args)
    digests = [shown_digest(shown) for shown in chosen.select(args.show).iter_rows(named=True)]
    left = rows.filter(~pl.col("row_id").is_in(chosen["row_id"].implode()))
    return Output(
        rows=chosen.with_columns(pl.Series("shown", digests, dtype=pl.String), asked=pl.col(about)),
        dropped=dropped_rows(left, reason="not asked about"),
    )


@step(makes=label_tables.answered, name="answered_{name}", fan_out=each())
def answered(rows: pl.DataFrame, args: Asking, labels: pl.DataFrame) -> Output:
    """Return the rows with their answers, each with its answers among its parents; raises WaitingError for too few."""
    given: dict[str, _Answers] = {
        row: _Answers(args, shown) for row, shown in rows.select("asked", "shown").iter_rows()
    }
    for answer in labels.iter_rows(named=True):
        if answer["asked"] in given:
            given[answer["asked"]].add(answer)
    done = [row for row, answers in given.items() if len(answers.people) >= args.people]
    enough = min(args.need or len(given), len(given))
    if len(done) < enough:
        left = enough - len(done)
        waits = "1 row waits" if left == 1 else f"{left:,} rows wait"
        raise WaitingError(f"{waits} for answers", command=f"normloom label {args.name}")
    kept = rows.filter(pl.col("asked").is_in(done)).drop("place", "chosen_by", "shown")
    made = [given[row] for row in kept["asked"]]
    columns = [
        pl.Series(name, [one.value(name, question) for one in made], dtype=label_tables.column_type(question))
        for name, question in args.asks.questions.items()
    ]
    through = [[row, *one.rows] for row, one in zip(kept["row_id"], made, strict=True)]
    return Output(
        rows=kept.with_columns(
            pl.Series("answers", [len(one.people) for one in made], dtype=pl.Int64),
            pl.Series("through", through, dtype=pl.List(pl.String)),
            *columns,
        ),
        dropped=dropped_rows(rows.filter(~pl.col("asked").is_in(done)), reason="unanswered"),
    )


@dataclass
class _Answers:
    """The answers to one row that were given to what is shown of it."""

    args: Asking
    shown: str

    def __post_init__(self) -> None:
        self.given: dict[str, dict[str, dict[str, Any]]] = {}  # who -> question -> answer

    def add(self, answer: dict[str, Any]) -> None:
        if answer["shown"] in {None, self.shown}:
            self.given.setdefault(answer["who"], {})[answer["question"]] = answer

    @property
    def people(self) -> list[str]:
        """Who answered every question that must be answered."""
        return [who for who, given in self.given.items() if all(name in given for name in self.args.asks.required)]

    @property
    def rows(self) -> list[str]:
        """The ids of the answers, as rows of their table."""
        return [answer["row_id"] for who in self.people for answer in self.given[who].values()]

    def value(self, name: str, question: Question) -> object:
        """Return what people answered together, None if they do not agree or nobody did."""
        answers = [self.given[who][name] for who in self.people if name in self.given[who]]
        if not answers:
            return None
        values = [answer["value"] for answer in answers]
        if question.kind == "number":
            return sum(map(float, values)) / len(values)
        if question.kind == "choices":
            chosen = Counter(option for value in values for option in json.loads(value))
            return [option for option in question.options if chosen[option] * 2 > len(values)]
        if question.kind == "text":
            return max(answers, key=lambda answer: answer["when"])["value"]
        (first, most), *others = Counter(values).most_common()
        return None if others and others[0][1] == most else first
