"""Answering rows in a terminal, one at a time, with questions, guidelines and progress."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from normloom.cli.common import escaped, out
from normloom.cli.output.row_text import show_rows
from normloom.core.errors import UsageError
from normloom.core.rows.text import counted
from normloom.labelling.questions import Question
from normloom.labelling.queue import LabelQueue, QueueRow

if TYPE_CHECKING:
    from normloom.tasks.metrics.figure import Figure

ID_SHOWN = 8
HELP = "Enter leaves an optional question out. :s skips the row, :u undoes the last answer, :g guidelines, :q ends."


class _LeftError(Exception):
    """The person entered a command instead of an answer; the text is the command."""


def answer_all(queue: LabelQueue, who: str) -> None:
    """Ask about row after row until none is left or the person quits."""
    if queue.asks.guidelines:
        out.print(escaped_lines(queue.asks.guidelines), highlight=False)
    out.print(f"[dim]{HELP}", highlight=False)
    skipped: list[str] = []
    while found := queue.next(who, skipping=skipped):
        show_row(queue, found[0])
        try:
            if given := dict(_asked(queue)):
                queue.record(found[0], given, who)
            else:
                skipped.append(found[0].row)
                out.print("Nothing was answered: the row is skipped.")
        except _LeftError as left:
            if str(left) == ":q":
                break
            if str(left) == ":s":
                skipped.append(found[0].row)
            elif str(left) == ":u":
                taken = queue.undo(who)
                skipped = [row for row in skipped if row not in {answer.row for answer in taken}]
                out.print("Undid the last answer." if taken else "Nothing to undo.")
            else:
                out.print(escaped_lines(queue.asks.guidelines or "No guidelines."), highlight=False)
    show_progress(queue)


def show_row(queue: LabelQueue, row: QueueRow) -> None:
    """Print a row: its place, why it was chosen, the shown columns, and earlier answers."""
    out.print(
        f"\n[bold]{row.place} of {queue.rows.height}[/]  [dim]{row.row[:ID_SHOWN]}  {escaped(row.chosen_by)}[/]",
        highlight=False,
    )
    for name, value in row.shown.items():
        for line in _told(value):
            out.print(f"[bold]{escaped(name)}[/]  {escaped_lines(line)}", highlight=False)
    for name, answer in row.answers.items():
        out.print(f"[dim]answered before: {escaped(name)} {escaped(answer.text)}[/]", highlight=False)


def show_progress(queue: LabelQueue) -> None:
    """Print the progress of a queue."""
    progress = queue.progress()
    people = ", ".join(f"{who} {count:,}" for who, count in progress.by_person.items())
    done = f"{progress.answered:,} of {progress.rows:,} rows answered"
    out.print(escaped(f"{done}{f' ({people})' if people else ''}; {progress.waiting:,} wait."), highlight=False)
    if len(progress.by_person) > 1:
        for question, alpha in alphas(queue).items():
            told = f"undefined ({alpha.undefined})" if alpha.value is None else f"{alpha.value:.3f}"
            out.print(escaped(f"Agreement on {question}: alpha {told}, {counted(alpha.rows)}"), highlight=False)
    if not progress.waiting:
        out.print("The next run of the build that asked continues.")


def show_list(queue: LabelQueue, rows: Sequence[QueueRow]) -> None:
    """Print a line for each row: place, id, shown columns, and the answers of the person listing them."""
    shown, asked = queue.asking.show, list(queue.asks.questions)
    lines = [
        [row.place, row.row[:ID_SHOWN], *(row.shown[name] for name in shown), *(_given(row, name) for name in asked)]
        for row in rows
    ]
    show_rows(out, ["place", "row", *shown, *asked], lines)


def row_json(row: QueueRow) -> dict[str, Any]:
    """Return a row as JSON types."""
    answers = {name: answer.model_dump(mode="json")["value"] for name, answer in row.answers.items()}
    return {
        "row": row.row,
        "place": row.place,
        "chosen_by": row.chosen_by,
        "shown": dict(row.shown),
        "answers": answers,
    }


def progress_json(queue: LabelQueue) -> dict[str, Any]:
    """Return the progress and questions of a queue, as JSON types."""
    progress = queue.progress()
    return {
        "name": queue.name,
        "system": queue.system,
        "questions": {name: one.model_dump(mode="json") for name, one in queue.asks.questions.items()},
        "rows": progress.rows,
        "answered": progress.answered,
        "waiting": progress.waiting,
        "by_person": dict(progress.by_person),
        "alpha": {name: alpha.value for name, alpha in alphas(queue).items()} if len(progress.by_person) > 1 else {},
    }


def alphas(queue: LabelQueue) -> dict[str, Figure]:
    """Return Krippendorff's alpha of each question but texts, over the rows of the queue."""
    import polars as pl

    from normloom.tasks.labels.agreement import measured

    said = [(one.row, one.who, one.question, one.text) for one in queue.counted()]
    answers = pl.DataFrame(said, schema=dict.fromkeys(("asked", "who", "question", "value"), pl.String), orient="row")
    asked = {name: one for name, one in queue.asks.questions.items() if one.kind != "text"}
    return {name: measured(answers.filter(question=name), one)["alpha"] for name, one in asked.items()}


def escaped_lines(text: str) -> str:
    """Return a text of several lines that rich prints as it is, control characters spelled out."""
    return "\n".join(escaped(line) for line in text.splitlines())


def _asked(queue: LabelQueue) -> Iterable[tuple[str, Any]]:
    for name, question in queue.asks.questions.items():
        if (value := _answer(name, question)) is not None:
            yield name, value


def _answer(name: str, question: Question) -> Any:
    """Ask until the answer fits; raises _LeftError for a command."""
    options = "  ".join(f"[bold]{number}[/] {escaped(one)}" for number, one in enumerate(question.options, 1))
    several = " (several: 1 3)" if question.several else ""
    out.print(f"{escaped(question.text or name)}  {options or f'({question.told})'}{several}", highlight=False)
    while True:
        given = _line(f"{name}> ")
        if given in {":s", ":u", ":g", ":q"}:
            raise _LeftError(given)
        if not given and question.optional:
            return None
        try:
            return question.fitting(_chosen(given, question), name=name)
        except UsageError as error:
            out.print(f"[yellow]{escaped(error)}", highlight=False)


def _line(prompt: str) -> str:
    try:
        return input(prompt).strip()
    except EOFError:
        raise _LeftError(":q") from None


def _chosen(given: str, question: Question) -> Any:
    """Return options by their numbers, other texts as they are."""
    numbered = {str(number): one for number, one in enumerate(question.options, 1)}
    if question.several:
        return [numbered.get(part, part) for part in given.split()]
    return numbered.get(given, given)


def _given(row: QueueRow, question: str) -> str:
    answer = row.answers.get(question)
    return answer.text if answer else ""


def _told(value: Any) -> list[str]:
    """Return a value as texts to read: a conversation turn by turn."""
    if isinstance(value, list) and value and all(isinstance(turn, Mapping) and "content" in turn for turn in value):
        return [f"{turn.get('role', '')}: {turn['content']}" for turn in value]
    return [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)]
