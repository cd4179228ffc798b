"""LoRA adapters of random weights, written by PEFT, and a step that makes one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from tiny_models import save_tiny_llama

from normloom.core.models.protocol import ModelSpec
from normloom.core.run import Run
from normloom.core.stage import Output
from normloom.steps.args import Args
from normloom.steps.step import step

NOTHING = {"pairs": pl.Int64}


class Seed(Args):
    seed: int = 0


def account(rows: pl.DataFrame) -> Output:
    told = pl.DataFrame({"pairs": [rows.height]})
    return Output(rows=told.with_columns(parents=pl.lit([], dtype=pl.List(pl.String)), content=pl.lit("x")), attempts=1)


def save_adapter(base: str, folder: Path, *, seed: int = 0, rank: int = 4, **changes: Any) -> None:
    """Write an adapter for the model in the directory `base`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    settings = {"target_modules": ["q_proj", "v_proj"], "init_lora_weights": False, "task_type": "CAUSAL_LM"}
    tuned = get_peft_model(model, LoraConfig(r=rank, **{**settings, **changes}))
    tuned.peft_config["default"].base_model_name_or_path = base
    tuned.save_pretrained(folder)


@step(makes=NOTHING, files="adapter")
def adapt(rows: pl.DataFrame, args: Seed, *, policy: ModelSpec, run: Run) -> Output:
    """Leave an adapter of random weights."""
    save_adapter(policy.model, run.files, seed=args.seed)
    return account(rows)


@step(makes=NOTHING, files="adapter")
def adapt_scripted(rows: pl.DataFrame, args: Seed, run: Run) -> Output:
    """Leave what a scripted model takes for an adapter."""
    (run.files / "adapter_config.json").write_text("{}")
    (run.files / "adapter_model.safetensors").write_text(str(args.seed))
    return account(rows)


@step(makes=NOTHING, files="weights")
def write_whole(rows: pl.DataFrame, args: Seed, run: Run) -> Output:  # noqa: ARG001  # settings of `adapt`, too
    """Leave a whole model."""
    save_tiny_llama(run.files)
    return account(rows)
