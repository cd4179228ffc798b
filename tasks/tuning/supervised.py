"""Supervised tuning: a policy learns replies to prompts; one run resumes from its checkpoints."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from pickle import UnpicklingError  # only what weights_only raises
from typing import Any

from pydantic import Field

from normloom.core.errors import StageError, StoreError
from normloom.steps.args import Args
from normloom.tasks.tuning.checkpoints import newest
from normloom.tasks.tuning.lora import FOLDER, Lora, lora_config, save_adapter, trainable
from normloom.tasks.tuning.policies import Policy, Tell, watching
from normloom.tasks.tuning.trainer import on_one_gpu, settings_of

LIBRARIES = ("trl", "peft", "torch", "transformers", "accelerate", "tokenizers", "safetensors", "datasets", "Jinja2")
_BEFORE = "before.json"  # in the scratch folder: the loss of the untrained policy


class Tuning(Args):
    """How a policy is tuned on replies. The adapter is AlignX's (rank 64, alpha 32, dropout 0.1), the rest ours."""

    learning_rate: float = Field(2e-4, gt=0, description="learning rate at the end of the warm-up")
    warmup_steps: int = Field(10, ge=0, description="steps until the learning rate is reached")
    epochs: float = Field(3, gt=0, description="passes over the replies")
    max_steps: int | None = Field(None, ge=1, description="maximum number of steps; null: until the epochs are done")
    batch: int = Field(4, ge=1, description="replies in a forward pass")
    accumulate: int = Field(4, ge=1, description="forward passes to a step")
    max_tokens: int = Field(1024, ge=8, description="longer prompts with their reply are dropped")
    seed: int = Field(42, description="seed of the adapter's weights and the order of the replies")
    lora: Lora = Lora(rank=64, alpha=32, dropout=0.1)
    checkpoint_steps: int = Field(50, ge=1, exclude=True, description="steps between checkpoints")


@dataclass(frozen=True)
class Replies:
    """Prompts and replies in tokens; the loss is that of the tokens of replies."""

    prompts: Sequence[Sequence[int]]
    replies: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Curve:
    """The steps that a trainer logged, and the mean loss of the held-out replies before and after; None without any."""

    steps: Sequence[dict[str, float]]
    before: float | None
    after: float | None


def tune(learn: Replies, held_out: Replies, args: Tuning, policy: Policy, *, scratch: Path, tell: Tell) -> Curve:
    """Tune an adapter on replies; it is in `scratch/adapter` at the end.

    Checkpoints are in `scratch`: a run in the same folder resumes from the newest, and on a CPU in float32 ends with
    the weights of a run that was never cut short. Raises StageError for a loss that is not finite, StoreError for a
    checkpoint that cannot be written or read.
    """
    with warnings.catch_warnings():  # PEFT and TRL still use a name that transformers is giving up
        warnings.filterwarnings("ignore", ".*gradient_checkpointing. is deprecated", FutureWarning)
        return _tuned(learn, held_out, args, policy, scratch, tell)


def _tuned(learn: Replies, held_out: Replies, args: Tuning, policy: Policy, scratch: Path, tell: Tell) -> Curve:
    from transformers import PrinterCallback

    trainer = _trainer()(
        model=trainable(policy.model),
        peft_config=lora_config(args.lora, policy.model),
        args=_configured(args, scratch, on_cpu=next(policy.model.parameters()).device.type == "cpu"),
        data_collator=_collator(policy.padding),
        train_dataset=_data_set(learn),
        eval_dataset=_data_set(held_out) if held_out.replies else None,
        processing_class=policy.tokenizer,
        callbacks=[watching(tell)],
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = newest(scratch)
    try:
        before = _before(trainer, scratch) if held_out.replies else None
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        after = float(trainer.evaluate()["eval_loss"]) if held_out.replies else None
        save_adapter(trainer.model, scratch / FOLDER, base=policy.name)
    except UnpicklingError as error:  # what is no tensor is refused, whatever it would do
        raise StoreError(f"{checkpoint} cannot be read ({error}); remove it to start from the one before") from error
    except OSError as error:
        raise StoreError(f"{scratch}: a checkpoint cannot be written ({error.strerror or error})") from error
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    return Curve(steps, before, after)


def _before(trainer: Any, scratch: Path) -> float:
    """Return the loss of the untrained policy, whose adapter changes nothing yet; a resumed run finds it written."""
    written = scratch / _BEFORE
    if not written.is_file():
        draft = written.with_suffix(".tmp")
        draft.write_text(json.dumps(float(trainer.evaluate()["eval_loss"])))
        os.replace(draft, written)  # noqa: PTH105  # whole or not there
    return float(json.loads(written.read_text()))


def _trainer() -> Any:
    from trl import SFTTrainer

    class Trainer(SFTTrainer):  # type: ignore[misc]  # TRL has no types
        """TRL's trainer on data that are in tokens, with an end to losses that are not finite."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            for name in ("loss", "grad_norm"):
                if not isfinite(float(logs.get(name, 0.0))):
                    raise StageError(
                        f"{name} of step {self.state.global_step} is {logs[name]}: lower the learning rate"
                    )
            super().log(logs, start_time)

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            """Save without TRL's model card, which asks the network for its citation."""
            super(SFTTrainer, self)._save_checkpoint(model, trial)

    return Trainer


def _collator(padding: int) -> Any:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    return DataCollatorForLanguageModeling(pad_token_id=padding)


def _configured(args: Tuning, scratch: Path, *, on_cpu: bool) -> Any:
    from trl import SFTConfig

    return on_one_gpu(
        SFTConfig(
            **settings_of(args, scratch, on_cpu=on_cpu),
            per_device_train_batch_size=args.batch,
            per_device_eval_batch_size=args.batch,
            packing=False,
            gradient_checkpointing=not on_cpu,
        )
    )


def _data_set(replies: Replies) -> Any:
    from datasets import Dataset

    pairs = list(zip(replies.prompts, replies.replies, strict=True))
    return Dataset.from_dict(
        {
            "input_ids": [[*prompt, *reply] for prompt, reply in pairs],
            "labels": [[*[-100] * len(prompt), *reply] for prompt, reply in pairs],
        }
    )
