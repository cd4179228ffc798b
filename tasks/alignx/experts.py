"""Tune the expert of an axis: a LoRA adapter that learns the good replies of the axis."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import polars as pl

from normloom.core.errors import StageError
from normloom.core.fan_out import free
from normloom.core.models.needs import Needs
from normloom.core.models.protocol import ModelSpec, ReplyRequest, Turn
from normloom.core.rows.text import commonest_first
from normloom.core.run import Run
from normloom.core.stage import Output, dropped, dropped_frame
from normloom.schemas import tables
from normloom.schemas.training import routing_tables
from normloom.schemas.training.alignx_tables import DEV, TRAIN
from normloom.steps.step import step
from normloom.tasks.tuning.lora import FOLDER
from normloom.tasks.tuning.policies import load
from normloom.tasks.tuning.supervised import LIBRARIES, Curve, Replies, Tuning, tune

Row = dict[str, Any]


@step(
    makes=routing_tables.TUNING_CURVE,
    files=FOLDER,
    needs=Needs(threads=2),
    libraries=LIBRARIES,
    fan_out=free("one row for each step of the training"),
)
def tune_expert(
    rows: pl.DataFrame, args: Tuning, axis_rows: pl.DataFrame, *, axis: str, policy: ModelSpec, run: Run
) -> Output:
    """Tune an adapter of `policy` on the first good reply to each training prompt of an axis, plain and injected.

    The rows are the curve, with the loss of the development rows before and after. Dropped are prompts of another
    axis, held-out ones, those without a good reply, and those that are too long. A run that was killed resumes. Raises
    StageError if no reply is left, or for a loss that is not finite.
    """
    loaded = load(policy)
    learn, held_out, gone = _exchanges(rows, args, axis_rows, axis, loaded.tokenizer, policy.model)
    if not learn.replies:
        reasons = commonest_first(str(entry["reason"]) for entry in gone if entry["reason"] != "other_axis")
        raise StageError(f"axis {axis!r}: it has no reply that can be learned from ({reasons or 'no prompt'})")

    def tell(step: int, of: int, figures: Mapping[str, float]) -> None:
        run.progress(step, of, loss=figures["loss"])

    curve = tune(learn, held_out, args, loaded, scratch=run.scratch, tell=tell)
    for path in (run.scratch / FOLDER).iterdir():
        shutil.copyfile(path, run.files / path.name)
    made = _rows(curve, axis)
    return Output(
        rows=made,
        dropped=dropped_frame(gone),
        attempts=made.height + len(gone),
        metrics={"replies": float(len(learn.replies)), "held_out": float(len(held_out.replies))},
    )


def _exchanges(
    rows: pl.DataFrame, args: Tuning, axis_rows: pl.DataFrame, axis: str, tokenizer: Any, name: str
) -> tuple[Replies, Replies, list[dict[str, str | None]]]:
    """Return training and development replies in tokens, and the rows that are not learned from."""
    from normloom.models.requests.chat import Chat
    from normloom.models.requests.prompts import Prompter

    prompter = Prompter(Chat(tokenizer, name=name), limit=int(tokenizer.model_max_length))
    known = {row["row_id"]: row for row in axis_rows.filter(axis=axis).iter_rows(named=True)}
    parts: dict[str, list[Any]] = {TRAIN: [], DEV: []}
    gone = []
    for row in rows.iter_rows(named=True):
        told = known.get(row["prompt_id"])
        reason = _left_out(row, told)
        exchange = None
        if told and told["reference"] and row["split"] in parts:
            asked = _request(row, told, args.max_tokens)
            exchange = prompter.exchange(asked, end=int(tokenizer.eos_token_id))
            reason = "too_long" if exchange.error else reason
            if not exchange.error:
                parts[row["split"]].append(exchange)
        if reason:
            gone.append(dropped({name: row[name] for name in ("row_id", "prompt_id", "variant")}, reason))
    learn, held_out = (
        Replies([list(one.prompt) for one in part], [list(one.reply) for one in part])
        for part in (parts[TRAIN], parts[DEV])
    )
    return learn, held_out, gone


def _left_out(row: Row, told: Row | None) -> str | None:
    """Return why a prompt is not learned from, None if it is."""
    if told is None:
        return "other_axis"
    if row["split"] != TRAIN:
        return "held_out"
    return None if told["reference"] else "no_reply"


def _request(row: Row, told: Row, max_tokens: int) -> ReplyRequest:
    said = told["history"] or ()
    system = "\n\n".join(turn["content"] for turn in said if turn["role"] == "system")
    turns = tuple(Turn(turn["role"], turn["content"]) for turn in said if turn["role"] != "system")
    return ReplyRequest(
        instruction=system, prompt=row["prompt"], reply=told["reference"][0], history=turns, max_tokens=max_tokens
    )


def _rows(curve: Curve, axis: str) -> pl.DataFrame:
    made: list[Row] = [{"step": 0, "epoch": 0.0, "held_out_loss": curve.before}]
    made += [
        {
            "step": int(entry["step"]),
            "epoch": float(entry["epoch"]),
            "loss": float(entry["loss"]),
            "learning_rate": float(entry["learning_rate"]),
            "gradient_norm": float(entry["grad_norm"]),
            "seconds": float(entry["seconds"]),
        }
        for entry in curve.steps
    ]
    made[-1]["held_out_loss"] = curve.after
    frame = pl.DataFrame([{"axis": axis, **row} for row in made], schema=routing_tables.TUNING_CURVE.columns)
    return frame.with_columns(parents=pl.lit([], dtype=tables.TEXTS), content=pl.col("step").cast(pl.String))
