"""One training run: pairs in tokens and a policy in, an adapter and its curve out; it resumes from its checkpoints."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # only what weights_only raises
from typing import Any

import polars as pl
from pydantic import Field

from normloom.core.errors import ConfigError, StoreError
from normloom.core.protocol import ModelSpec
from normloom.schemas import preference_tables
from normloom.steps.args import Args
from normloom.tasks.preferences.dpo.checkpoints import newest, seal

log = logging.getLogger(__name__)

Tell = Callable[[int, int, Mapping[str, float]], None]  # step, of how many, its figures
FOLDER = "adapter"
ADAPTER, CONFIG = "adapter_model.safetensors", "adapter_config.json"


class Lora(Args):
    """The adapter that is trained (LoRA, Hu et al. 2021, arXiv 2106.09685)."""

    rank: int = Field(8, ge=1, description="of the update")
    alpha: float = Field(16, gt=0, description="scale of the update, over its rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the inputs of the adapter that is dropped")
    modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"), min_length=1, description="layers that have an adapter, by name"
    )
    last_layers: int | None = Field(None, ge=1, description="blocks at the end of the model that have it; null: all")


class Training(Args):
    """How a policy is trained; the paper's values but for the adapter, which is ours (the paper trains all weights)."""

    beta: float = Field(0.1, gt=0, description="how strongly the policy is held to the reference")
    learning_rate: float = Field(1e-6, gt=0, description="at the end of the warm-up")
    warmup_steps: int = Field(150, ge=0, description="steps until the learning rate is reached")
    epochs: float = Field(3, gt=0, description="passes over the pairs")
    max_steps: int | None = Field(None, ge=1, description="ends earlier; null: when the epochs are done")
    batch: int = Field(4, ge=1, description="pairs in a forward pass")
    accumulate: int = Field(4, ge=1, description="forward passes to a step")
    seed: int = Field(42, description="of the adapter's weights and the order of the pairs")
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


@dataclass(frozen=True)
class Policy:
    """The model that is trained, loaded in this process, its tokenizer, and the name that its adapter knows it by."""

    model: Any
    tokenizer: Any
    name: str


def load(policy: ModelSpec) -> Policy:
    """Return a policy loaded to be trained, in float32 unless its spec says otherwise."""
    from transformers import AutoModelForCausalLM

    from normloom.models.loading import load as loaded
    from normloom.models.loading import tokenizer_of

    spec = policy.model_copy(update={"dtype": "float32"}) if policy.dtype == "auto" else policy
    return Policy(loaded(AutoModelForCausalLM, spec, threads=policy.threads), tokenizer_of(spec), policy.model)


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
        model=_trainable(policy.model),
        peft_config=_adapter(args, policy.model),
        args=_configured(
            args, scratch, on_cpu=next(policy.model.parameters()).device.type == "cpu", processes=processes
        ),
        data_collator=Collator(pad_token_id=_padding(policy.tokenizer)),
        train_dataset=_data_set(pairs, PAIR, WEIGHT),
        processing_class=policy.tokenizer,
        callbacks=[_watching(tell)],
        names=list(pairs.names),
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = newest(scratch)
    if checkpoint:
        trainer.resume_count(TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME)).log_history)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if trainer.is_world_process_zero():
            _save(trainer.model, scratch / FOLDER, base=policy.name)
    except UnpicklingError as error:  # what is no tensor is refused, whatever it would do
        raise StoreError(f"{checkpoint} cannot be read ({error}); remove it to start from the one before") from error
    except OSError as error:
        raise StoreError(f"{scratch}: a checkpoint cannot be written ({error.strerror or error})") from error
    return curve_of(trainer.state.log_history)


def _save(model: Any, folder: Path, *, base: str) -> None:
    """Write the adapter as safetensors with its configuration, and nothing that names a path of this machine.

    PEFT writes the names of layers in the order of a set, another one in each process: they are sorted here, so that
    the same training leaves the same files.
    """
    for config in model.peft_config.values():
        config.base_model_name_or_path = base
    model.save_pretrained(folder, save_embedding_layers=False)  # or it looks at the hub for the base
    for path in folder.iterdir():
        if path.name not in {ADAPTER, CONFIG}:
            path.unlink()
    written = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    written["target_modules"] = sorted(written["target_modules"])
    (folder / CONFIG).write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")


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


def _trainable(model: Any) -> Any:
    if (method := getattr(model, "quantization_method", None)) is not None:
        raise ConfigError(f"the policy is quantized ({method}) and cannot be trained; name one in float32 or bfloat16")
    return model


def _adapter(args: Training, model: Any) -> Any:
    from peft import LoraConfig

    lora, blocks = args.lora, int(model.config.get_text_config().num_hidden_layers)
    last = None if lora.last_layers is None else list(range(max(blocks - lora.last_layers, 0), blocks))
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.modules),
        layers_to_transform=last,
        task_type="CAUSAL_LM",
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

    configured = DPOConfig(
        output_dir=str(scratch),
        beta=args.beta,
        learning_rate=args.learning_rate,
        warmup_steps=args.warmup_steps,
        num_train_epochs=args.epochs,
        max_steps=args.max_steps or -1,
        per_device_train_batch_size=share_of_batch(args, processes),
        gradient_accumulation_steps=args.accumulate,
        seed=args.seed,
        max_length=None,  # pairs that are too long have been dropped
        precompute_ref_log_probs=True,
        activation_checkpointing=False,
        bf16=False,
        use_cpu=on_cpu,
        ddp_backend=("gloo" if on_cpu else "nccl") if processes > 1 else None,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=args.checkpoint_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )
    if configured.n_gpu > 1:  # one process would spread a batch over all of them, which grows with their number
        log.warning("%d GPUs are visible, one is asked for: a policy is trained on the first", configured.n_gpu)
        configured._n_gpu = 1  # noqa: SLF001  # as transformers' own Trainer does where it must not spread
    return configured


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


def _padding(tokenizer: Any) -> int:
    padding = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return int(padding)


def _watching(tell: Tell) -> Any:
    """Return a callback that tells each step, takes its time and seals checkpoints."""
    from transformers import TrainerCallback

    class Watching(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
        begun = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002  # as called
            self.begun = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
            if logs and "loss" in logs:
                state.log_history[-1]["seconds"] = time.monotonic() - self.begun
                tell(state.global_step, state.max_steps, state.log_history[-1])

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002  # as called
            if state.is_world_process_zero:
                seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    return Watching()
