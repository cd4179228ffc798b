"""Sets of prompts for one axis each, in the layouts that they are published in: good replies, and replies to avoid."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from pydantic import Field

from normloom.core.rows.text import text_problem
from normloom.core.stage import Output, dropped_rows, quarantined_frame
from normloom.readers import LIBRARIES, Located, read_source
from normloom.readers.records import none_usable
from normloom.schemas import tables
from normloom.schemas.training import alignx_tables
from normloom.schemas.training.alignx_tables import DEV, HARMLESS, HELPFUL, HONEST, TEST, TRAIN
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.records import fault

Record = Mapping[str, Any]
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]*")
SPLITS = {
    "train": TRAIN,
    **dict.fromkeys(("dev", "valid", "validation"), DEV),
    **dict.fromkeys(("test", "held_out"), TEST),
}
_ROLES = {"Human": "user", "Assistant": "assistant"}


class ReadAxisSet(Args):
    """Which prompts are taken."""

    max_chars: int = Field(20_000, ge=1, description="longer prompts are quarantined")


@dataclass(frozen=True, kw_only=True)
class AxisSet:
    """A published layout: its needed columns, and how a record becomes a row without `source_row`.

    Values are texts, in `lists` of them for columns with several.
    """

    columns: tuple[str, ...]
    row: Callable[[Record], dict[str, Any]]
    optional: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()


def _row(
    axis: str, prompt: str | None, good: Sequence[Any] = (), bad: Sequence[Any] = (), history: Any = None
) -> dict[str, Any]:
    return {
        "axis": axis,
        "history": history,
        "prompt": prompt,
        "reference": _texts(good),
        "bad_reference": _texts(bad),
        "given_split": None,
    }


def _texts(values: Any) -> list[str]:
    """Return the texts that say something."""
    return [one for one in values or () if one and one.strip()]


def _instruction(record: Record) -> dict[str, Any]:
    parts = [record[name].strip() for name in ("instruction", "input") if record[name]]
    return _row(HELPFUL, "\n\n".join(part for part in parts if part), [record["output"]])


def _judged(record: Record) -> dict[str, Any]:
    return _row(HELPFUL, record["instruction"], [record["baseline_reply"]])


def _pair(record: Record) -> dict[str, Any]:
    history, prompt = _dialogue(record["context"])
    return _row(HARMLESS, prompt, [record["chosen"]], [record["rejected"]], history)


def _labelled(record: Record) -> dict[str, Any]:
    return _row(HARMLESS, record["prompt"], (), [record["response"]])


def _question(record: Record) -> dict[str, Any]:
    correct = sorted(_texts(record["correct_answers"]), key=lambda one: one != record["best_answer"])  # the best first
    return _row(HONEST, record["question"], correct, record["incorrect_answers"])


def _query(record: Record) -> dict[str, Any]:
    return _row(HONEST, record["query"])


def _own(record: Record) -> dict[str, Any]:
    axis, split = (record["axis"] or "").strip(), (record.get("split") or "").strip() or None
    made = _row(axis, record["prompt"], record.get("reference") or (), record.get("bad_reference") or ())
    return {**made, "given_split": SPLITS.get((split or "").lower(), split)}


def _dialogue(context: str | None) -> tuple[list[dict[str, str]] | None, str | None]:
    """Return the turns before the last one, and the last one; a text without turns is a prompt that stands alone."""
    parts = _TURN.split(context or "")
    if len(parts) == 1:
        return None, context
    turns: list[dict[str, str]] = []
    for speaker, text in zip(parts[1::2], parts[2::2], strict=True):
        role, content = _ROLES[speaker], text.strip()
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += f"\n\n{content}"
        else:
            turns.append({"role": role, "content": content})
    last = turns.pop()
    return turns or None, last["content"]


AXIS_SETS: Mapping[str, AxisSet] = {  # by the folder that a set is kept in; the order is that of the rows
    "instruction_seed_tasks": AxisSet(columns=("instruction", "input", "output"), row=_instruction),
    "alpaca_eval_judged": AxisSet(columns=("instruction", "baseline_reply"), row=_judged),
    "hh_harmless": AxisSet(columns=("context", "chosen", "rejected"), row=_pair),
    "beavertails_sample": AxisSet(columns=("prompt", "response", "category"), row=_labelled),
    "truthfulqa_full": AxisSet(
        columns=("question", "best_answer", "correct_answers", "incorrect_answers"),
        row=_question,
        lists=("correct_answers", "incorrect_answers"),
    ),
    "honeset": AxisSet(columns=("query", "category"), row=_query),
    "axes": AxisSet(
        columns=("axis", "prompt"),
        row=_own,
        optional=("reference", "bad_reference", "split"),
        lists=("reference", "bad_reference"),
    ),
}


def layout_of(columns: Sequence[str]) -> str | None:
    """Return the name of the first layout whose columns are all there, None if there is none."""
    return next((name for name, layout in AXIS_SETS.items() if set(layout.columns) <= set(columns)), None)


@step(makes=alignx_tables.AXIS_SET, name="axis_set_{layout}", libraries=LIBRARIES)
def read_axis_set(args: ReadAxisSet, *, source: Located, layout: str) -> Output:
    """Return the prompts of one set with their good replies and those to avoid.

    A prompt that occurs again with nothing new is dropped as `repeated`. Quarantine rules: `missing_axis`,
    `unknown_split`, and those of `normloom.core.rows.text` for prompts. Raises SourceError if no record can be used.
    """
    known = AXIS_SETS[layout]
    read = read_source(source, text_column=None, keep=known.columns, optional=known.optional)
    given = [read.lists(name) if name in known.lists else read.text(name) for name in read.rows.columns[1:]]
    taken, faults = [], []
    for record in read.rows.with_columns(given).iter_rows(named=True):
        made = {"source_row": record["source_row"], "origin": layout, **known.row(record)}
        if problem := _problem(made, args.max_chars):
            faults.append(fault(record, *problem))
        else:
            taken.append({**made, "content": known_as(made)})
    aside = [*faults, *read.entries]
    if not taken:
        raise none_usable(source.name, aside)
    rows = pl.DataFrame(taken, schema=tables.named_by_content(alignx_tables.AXIS_SET))
    rows = rows.with_columns(parents=pl.lit([], dtype=tables.TEXTS))
    first_seen = pl.col("content").is_first_distinct()
    repeated = rows.filter(~first_seen).with_columns(row_id=pl.lit(None, dtype=pl.String))
    return Output(
        rows=rows.filter(first_seen),
        dropped=dropped_rows(repeated, reason="repeated"),
        quarantined=quarantined_frame(aside),
        attempts=read.records,
    )


def known_as(row: Record) -> str:
    """Return what tells a row of a set from all others: its axis, what is said, and the replies."""
    said = [f"{turn['role']}: {turn['content']}" for turn in row["history"] or ()]
    return "\x1f".join([row["axis"], *said, row["prompt"], *row["reference"], "\x1e", *row["bad_reference"]])


def _problem(row: Record, max_chars: int) -> tuple[str, str] | None:
    if not row["axis"]:
        return "missing_axis", "no axis"
    if row["given_split"] not in {None, *SPLITS.values()}:
        return "unknown_split", f"split is {row['given_split']!r}, expected {', '.join(SPLITS)}"
    return text_problem(row["prompt"], max_chars=max_chars)
