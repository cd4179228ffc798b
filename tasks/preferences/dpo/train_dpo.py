"""Train a policy on preference pairs: from rows to tokens, from tokens to an adapter, from an adapter to its curve."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from normloom.core.errors import ConfigError, StageError
from normloom.core.fan_out import free
from normloom.core.models.needs import Needs
from normloom.core.models.protocol import ModelSpec
from normloom.core.rows.text import commonest_first, counted
from normloom.core.run import Run
from normloom.core.stage import Output, dropped, dropped_frame
from normloom.schemas.training import preference_tables
from normloom.schemas.training.preference_tables import TRAIN
from normloom.steps.step import step
from normloom.tasks.preferences.dpo.log_probs import fault, named, request
from normloom.tasks.preferences.dpo.processes import train_in_processes
from normloom.tasks.preferences.dpo.training import Pairs, Training, share_of_batch, train
from normloom.tasks.tuning.lora import FOLDER
from normloom.tasks.tuning.policies import Tell, load

LIBRARIES = ("trl", "peft", "torch", "transformers", "accelerate", "tokenizers", "safetensors", "datasets", "Jinja2")


class Dpo(Training):
    """How a policy is trained, and whether the weight of a pair counts."""

    weighted: bool = Field(default=True, description="each pair's loss counts by its weight; false: all alike")


@step(
    makes=preference_tables.CURVE,
    files=FOLDER,
    needs=Needs(threads=2),
    libraries=LIBRARIES,
    fan_out=free("one row for each step of the training"),
)
def train_dpo(rows: pl.DataFrame, args: Dpo, reference: pl.DataFrame, *, policy: ModelSpec, run: Run) -> Output:
    """Train an adapter of `policy` on the training pairs (`learn`): the rows are the curve, the files the adapter."""
    processes = _processes(policy, run.gpus)
    made = learn(rows, args, reference, policy=policy, scratch=run.scratch, tell=_told(run), processes=processes)
    for path in (run.scratch / FOLDER).iterdir():
        shutil.copyfile(path, run.files / path.name)
    return made


def _told(run: Run) -> Tell:
    """Return who hears of a step what people look at."""

    def tell(step: int, of: int, figures: Mapping[str, float]) -> None:
        tokens, accuracy = figures["num_tokens"], figures["reward_accuracy"]
        run.progress(step, of, loss=figures["loss"], accuracy=accuracy, tokens=tokens)

    return tell


def learn(
    rows: pl.DataFrame,
    args: Dpo,
    reference: pl.DataFrame,
    *,
    policy: ModelSpec,
    scratch: Path,
    tell: Tell,
    processes: int = 1,
) -> Output:
    """Train an adapter of `policy` on the training pairs and return its curve; the adapter is in `scratch/adapter`.

    `reference` are the log-probabilities that the policy gave the replies before (`log_probs`): a pair that is not
    there was too long. Dropped are pairs without a reply, with two equal ones, those that were too long, and held-out
    ones. A run that was killed resumes in the same `scratch`. `processes` share each batch. Raises StageError if no
    pair is left, for a loss that is not finite, or if a process dies.
    """
    from normloom.models.loading import tokenizer_of

    share_of_batch(args, processes)
    before = {row["pair_id"]: row for row in reference.iter_rows(named=True)}
    kept, gone = [], []
    for pair in rows.iter_rows(named=True):
        reason = "held_out" if pair["split"] != TRAIN else fault(pair)
        reason = reason or (None if pair["row_id"] in before else "too_long")
        if reason:
            gone.append(dropped(named(pair), reason))
        else:
            kept.append(pair)
    if not kept:
        reasons = commonest_first(str(entry["reason"]) for entry in gone)
        raise StageError(
            f"none of {counted(rows.height, 'pair')} can be learned from ({reasons or 'the table is empty'})"
        )
    tokenizer = tokenizer_of(policy)
    pairs = _pairs(kept, before, args, tokenizer, name=policy.model)
    if processes > 1:  # pragma: no cover  # only with several GPUs
        curve = train_in_processes(processes, pairs, args, policy, scratch=scratch, tell=tell)
    else:
        curve = train(pairs, args, load(policy, tokenizer), scratch=scratch, tell=tell)
    made = curve.with_columns(parents=pl.lit([], dtype=pl.List(pl.String)), content=pl.col("step").cast(pl.String))
    return Output(
        rows=made,
        dropped=dropped_frame(gone),
        attempts=made.height + len(gone),
        tokens_in=int(curve["tokens"].max() or 0),  # type: ignore[arg-type]  # a count
        metrics={"pairs": float(len(kept))},
    )


def require_trainable(policy: ModelSpec, args: Training) -> None:
    """Raise ConfigError for a policy whose GPUs cannot share a batch."""
    share_of_batch(args, max(int(policy.gpus or 0), 1))


def _processes(policy: ModelSpec, gpus: float) -> int:
    """Return how many processes train: one for each GPU that the stage has; raises ConfigError if they are not here."""
    import torch

    number = 1 if policy.device == "cpu" else max(int(gpus), 1)
    if number > 1 and (seen := torch.cuda.device_count()) < number:
        raise ConfigError(f"the training is given {number} GPUs, but its process sees {seen}")
    return number


def _pairs(
    kept: Sequence[dict[str, Any]], before: dict[str, dict[str, Any]], args: Dpo, tokenizer: Any, *, name: str
) -> Pairs:
    """Return pairs in the tokens in which the policy reads prompts and writes replies."""
    from normloom.models.requests.chat import Chat
    from normloom.models.requests.prompts import Prompter

    prompter = Prompter(Chat(tokenizer, name=name), limit=int(tokenizer.model_max_length))
    end = int(tokenizer.eos_token_id)
    sides = {
        side: [prompter.exchange(request(pair, pair[side]), end=end) for pair in kept]
        for side in ("chosen", "rejected")
    }
    return Pairs(
        prompts=[list(exchange.prompt) for exchange in sides["chosen"]],
        chosen=[list(exchange.reply) for exchange in sides["chosen"]],
        rejected=[list(exchange.reply) for exchange in sides["rejected"]],
        ref_chosen=[before[pair["row_id"]]["chosen_logprob"] for pair in kept],
        ref_rejected=[before[pair["row_id"]]["rejected_logprob"] for pair in kept],
        weights=[pair["weight"] if args.weighted else 1.0 for pair in kept],
        names=[pair["row_id"] for pair in kept],
    )
