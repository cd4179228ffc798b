"""One training run: pairs in tokens and a policy in, an adapter and its curve out; it resumes from its checkpoints."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # only what weights_only raises
from typing import Any

import polars as pl
from pydantic import Field

from normloom.core.errors import ConfigError, StoreError
from normloom.schemas.training import preference_tables
from normloom.steps.args import Args
from normloom.tasks.tuning.checkpoints import newest
from normloom.tasks.tuning.lora import FOLDER, Lora, lora_config, save_adapter, trainable
from normloom.tasks.tuning.policies import Policy, Tell, watching
from normloom.tasks.tuning.trainer import on_one_gpu, settings_of


class Training(Args):
    """How a policy is trained; the paper's values but for the adapter, which is ours (the paper trains all weights)."""

    beta: float = Field(0.1, gt=0, description="how strongly the policy is held to the reference")
    learning_rate: float = Field(1e-6, gt=0, description="learning rate at the end of the warm-up")
    warmup_steps: int = Field(150, ge=0, description="steps until the learning rate is reached")
    epochs: float = Field(3, gt=0, description="passes over the pairs")
    max_steps: int | None = Field(None, ge=1, description="maximum number of steps; null: until the epochs are done")
    batch: int = Field(4, ge=1, description="pairs in a forward pass")
    accumulate: int = Field(4, ge=1, description="forward passes to a step")
    seed: int = Field(42, description="seed of the adapter's weights and the order of the pairs")
    lora: Lora = Lora()
    checkpoint_steps: int = Field(50, ge=1, exclude=True, description="steps between checkpoints")


@dataclass(frozen=True)
class Pairs:
    """Pairs in tokens: prompt, chosen and rejected; log-probabilities of the reference, weights and row ids."""

    prompts: Sequence[Sequence[int]]
    chosen: Sequence[Sequence[int]]
    rejected: Sequence[Sequence[int]]
    ref_chosen: Sequence[float]
    ref_rejected: Sequence[float]
    weights: Sequence[float]
    names: Sequence[str]


def train(
    pairs: Pairs, args: Training, policy: Policy, *, scratch: Path, tell: Tell, processes: int = 1
) -> pl.DataFrame:
    """Train an adapter on a policy and return the curve, a row for each step.

    `processes` is how many of them train together, each in a call of its own (`processes`): this one takes its share.

    The adapter is in `scratch/adapter` at the end. Checkpoints are in `scratch`: a run in the same folder resumes from
    the newest, and on a CPU in float32 ends with the weights of a run that was never cut short. Raises StageError for
    a loss that is not finite, StoreError for a checkpoint that cannot be written.
    """
    with warnings.catch_warnings():  # PEFT and TRL still use a name that transformers is giving up
        warnings.filterwarnings("ignore", ".*gradient_checkpointing. is deprecated", FutureWarning)
        return _train(pairs, args, policy, scratch, tell, processes)


def _train(pairs: Pairs, args: Training, policy: Policy, scratch: Path, tell: Tell, processes: int) -> pl.DataFrame:
    from transformers import PrinterCallback, TrainerState
    from transformers.trainer import TRAINER_STATE_NAME

    from normloom.tasks.preferences.dpo.trainer import PAIR, WEIGHT, Collator, WeightedDPOTrainer

    trainer = WeightedDPOTrainer(
        model=trainable(policy.model),
        peft_config=lora_config(args.lora, policy.model),
        args=_configured(
            args, scratch, on_cpu=next(policy.model.parameters()).device.type == "cpu", processes=processes
        ),
        data_collator=Collator(pad_token_id=policy.padding),
        train_dataset=_data_set(pairs, PAIR, WEIGHT),
        processing_class=policy.tokenizer,
        callbacks=[watching(tell)],
        names=list(pairs.names),
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = newest(scratch)
    if checkpoint:
        trainer.resume_count(TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME)).log_history)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if trainer.is_world_process_zero():
            save_adapter(trainer.model, scratch / FOLDER, base=policy.name)
    except UnpicklingError as error:  # what is no tensor is refused, whatever it would do
        raise StoreError(f"{checkpoint} cannot be read ({error}); remove it to start from the one before") from error
    except OSError as error:
        raise StoreError(f"{scratch}: a checkpoint cannot be written ({error.strerror or error})") from error
    return curve_of(trainer.state.log_history)


def curve_of(history: Sequence[Mapping[str, float]]) -> pl.DataFrame:
    """Return the steps that a trainer has logged, as rows under `preference_tables.CURVE`."""
    steps = [entry for entry in history if "loss" in entry]
    return pl.DataFrame(
        [
            {
                "step": int(entry["step"]),
                "epoch": float(entry["epoch"]),
                "loss": float(entry["loss"]),
                "unweighted_loss": float(entry["unweighted_loss"]),
                "learning_rate": float(entry["learning_rate"]),
                "gradient_norm": float(entry["grad_norm"]),
                "reward_accuracy": float(entry["reward_accuracy"]),
                "reward_margin": float(entry["reward_margin"]),
                "tokens": int(entry["num_tokens"]),
                "seconds": float(entry["seconds"]),
            }
            for entry in steps
        ],
        schema=preference_tables.CURVE.columns,
    )


def share_of_batch(args: Training, processes: int) -> int:
    """Return how many pairs of a batch each process takes; raises ConfigError unless each takes as many."""
    if args.batch % processes:
        raise ConfigError(
            f"train.batch: {args.batch} pairs cannot be shared by {processes} GPUs; "
            f"make it a multiple of {processes}, and train.accumulate less"
        )
    return args.batch // processes


def _configured(args: Training, scratch: Path, *, on_cpu: bool, processes: int = 1) -> Any:
    from trl import DPOConfig

    return on_one_gpu(
        DPOConfig(
            **settings_of(args, scratch, on_cpu=on_cpu),
            beta=args.beta,
            per_device_train_batch_size=share_of_batch(args, processes),
            precompute_ref_log_probs=True,
            activation_checkpointing=False,
            ddp_backend=("gloo" if on_cpu else "nccl") if processes > 1 else None,
            ddp_find_unused_parameters=False,
        )
    )


def _data_set(pairs: Pairs, pair: str, weight: str) -> Any:
    from datasets import Dataset

    columns = {
        "prompt_ids": pairs.prompts,
        "chosen_ids": pairs.chosen,
        "rejected_ids": pairs.rejected,
        "ref_chosen_logps": pairs.ref_chosen,
        "ref_rejected_logps": pairs.ref_rejected,
        weight: pairs.weights,
        pair: range(len(pairs.names)),
    }
    return Dataset.from_dict({name: list(values) for name, values in columns.items()})
