"""normloom label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normloom.cli.common import DEFAULT_STORE, JsonOption, StoreOption, escaped, out
from normloom.core.errors import UsageError
from normloom.core.formats.json_text import json_text
from normloom.core.rows.text import counted

if TYPE_CHECKING:
    from normloom.labelling.exchange.files import Form
    from normloom.labelling.queue import LabelQueue


class Action(StrEnum):
    """What to do with a queue."""

    ASK = "ask"
    LIST = "list"
    NEXT = "next"
    ANSWER = "answer"
    UNDO = "undo"
    PROGRESS = "progress"
    IMPORT = "import"
    EXPORT = "export"


class FileForm(StrEnum):
    """Files of other tools."""

    CSV = "csv"
    LABEL_STUDIO = "label-studio"
    ARGILLA = "argilla"


def label(
    name: Annotated[str, typer.Argument(help="The labels, as normloom labels lists them.", show_default=False)],
    action: Annotated[
        Action,
        typer.Argument(
            help="ask: one row after another; list: all rows; next: the next row; answer ROW ANSWER...; undo: undo the "
            "last answer; progress; import FILE; export FILE."
        ),
    ] = Action.ASK,
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[VALUE]...",
            help="For answer: the row, then QUESTION=ANSWER or, if there is one question, the answer.",
            show_default=False,
        ),
    ] = None,
    who: Annotated[
        str | None,
        typer.Option(help="Who answers.", envvar="NORMLOOM_WHO", show_default="the user of this machine"),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="The system that asks, if several use this name.", show_default=False)
    ] = None,
    format_: Annotated[
        FileForm | None, typer.Option("--format", help="Format of the file.", show_default="by the file")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    json_: JsonOption = False,
) -> None:
    """Answer rows that wait for people, one after another, or show progress.

    Each answer is stored at once: leave at any time and continue later. A correction is a new answer. When enough
    rows are answered, the next run of the build that asked continues. docs/labels.md.

    Examples:

        normloom label tone

        normloom label tone answer 7d01e6aa polite=yes strength=7

        normloom label tone export rows.csv, fill it in, normloom label tone import rows.csv --who ada

    With --json list, next and answer print rows (row, place, chosen_by, shown, answers), undo the answers taken back,
    progress what normloom labels prints, import and export a count.
    """
    from normloom.labelling.queue import open_queue
    from normloom.store.store import Store

    queue, given = open_queue(Store(store), name, system=system), values or []
    wanted = {Action.ANSWER: len(given), Action.IMPORT: 1, Action.EXPORT: 1}.get(action, 0)
    if len(given) != wanted:
        raise UsageError(f"{action.value} takes {'one file' if wanted else 'no further values'}, got {len(given)}")
    asked = _Asked(queue, who, given, format_.value if format_ else None, json_)
    ACTIONS[action](asked)


@dataclass(frozen=True)
class _Asked:
    queue: LabelQueue
    named: str | None
    values: list[str]
    form: Form | None
    json: bool

    @property
    def who(self) -> str:
        """Who answers."""
        from normloom.labelling.queue import person

        return person(self.named)

    def tell(self, value: Any, show: Callable[[], None]) -> None:
        """Print a value as JSON, or show it."""
        if self.json:
            print(json_text(value))
        else:
            show()


def _ask(asked: _Asked) -> None:
    from normloom.cli.output.labelling import answer_all

    if asked.json:
        raise UsageError("--json needs an action: list, next, answer, undo, progress, import or export")
    answer_all(asked.queue, asked.who)


def _list(asked: _Asked) -> None:
    from normloom.cli.output.labelling import row_json, show_list

    rows = asked.queue.listed(asked.who)
    asked.tell([row_json(row) for row in rows], lambda: show_list(asked.queue, rows))


def _next(asked: _Asked) -> None:
    from normloom.cli.output.labelling import row_json, show_row

    found = asked.queue.next(asked.who)
    asked.tell(
        row_json(found[0]) if found else None,
        lambda: show_row(asked.queue, found[0]) if found else out.print("Nothing is left to answer."),
    )


def _answer(asked: _Asked) -> None:
    from normloom.cli.output.labelling import row_json, show_progress

    if not asked.values:
        raise UsageError(f"give the row and the answer: normloom label {asked.queue.name} answer ROW ANSWER")
    row = asked.queue.row(asked.values[0], asked.who)
    asked.queue.record(row, _answers(asked.queue, asked.values[1:]), asked.who)
    asked.tell(row_json(asked.queue.row(row.row, asked.who)), lambda: show_progress(asked.queue))


def _undo(asked: _Asked) -> None:
    from normloom.labelling.answers import described

    taken = asked.queue.undo(asked.who)
    said = ", ".join(f"{answer.question} {answer.text}" for answer in taken)
    told = f"Undone: {said} (row {taken[0].row})" if taken else "Nothing to undo."
    asked.tell([described(answer) for answer in taken], lambda: out.print(escaped(told), highlight=False))


def _progress(asked: _Asked) -> None:
    from normloom.cli.output.labelling import progress_json, show_progress

    asked.tell(progress_json(asked.queue), lambda: show_progress(asked.queue))


def _import(asked: _Asked) -> None:
    from normloom.labelling.exchange.files import import_answers

    found = import_answers(asked.queue, Path(asked.values[0]), asked.form, who=asked.named)
    told = f"{found.new:,} new answer{'' if found.new == 1 else 's'}."
    if found.unasked:
        told += f" The queue does not ask about {len(found.unasked):,} of the rows, such as {found.unasked[0]}."
    asked.tell({"new_answers": found.new, "unasked": found.unasked}, lambda: out.print(escaped(told), highlight=False))


def _export(asked: _Asked) -> None:
    from normloom.labelling.exchange.files import export_answers

    path = Path(asked.values[0])
    if asked.form is None and path.suffix != ".csv":
        raise UsageError("a JSON file has several forms: give --format label-studio or --format argilla")
    count = export_answers(asked.queue, path, asked.form or "csv")
    asked.tell({"rows_written": count}, lambda: out.print(f"{counted(count)} written.", highlight=False))


ACTIONS: dict[Action, Callable[[_Asked], None]] = {
    Action.ASK: _ask,
    Action.LIST: _list,
    Action.NEXT: _next,
    Action.ANSWER: _answer,
    Action.UNDO: _undo,
    Action.PROGRESS: _progress,
    Action.IMPORT: _import,
    Action.EXPORT: _export,
}


def _answers(queue: LabelQueue, given: list[str]) -> dict[str, Any]:
    """Return answers by question; several options of one question are given one after another."""
    answers: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in queue.asks.questions:
            if len(queue.asks.questions) > 1:
                raise UsageError(f"{text!r}: expected QUESTION=ANSWER, with {', '.join(queue.asks.questions)}")
            name, value = next(iter(queue.asks.questions)), text
        if queue.asks.questions[name].several:
            answers.setdefault(name, []).append(value)
        else:
            answers[name] = value
    return answers
