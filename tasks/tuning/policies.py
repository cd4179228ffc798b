"""The model that is tuned, and who hears of the steps of its training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normloom.core.models.protocol import ModelSpec
from normloom.tasks.tuning.checkpoints import seal

Tell = Callable[[int, int, Mapping[str, float]], None]  # step, of how many, its figures


@dataclass(frozen=True)
class Policy:
    """The model that is trained, loaded in this process, its tokenizer, and the name that its adapter knows it by."""

    model: Any
    tokenizer: Any
    name: str

    @property
    def padding(self) -> int:
        """The token that fills up what is shorter than the rest of a batch."""
        token = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if token is None else token)


def load(policy: ModelSpec, tokenizer: Any = None) -> Policy:
    """Return a policy loaded to be trained, in float32 unless its spec says otherwise.

    A `tokenizer` that is there already is used: one takes nearly as long to load as a small model.
    """
    from transformers import AutoModelForCausalLM

    from normloom.models.loading import load as loaded
    from normloom.models.loading import tokenizer_of

    spec = in_float32(policy)
    model = loaded(AutoModelForCausalLM, spec, threads=policy.threads)
    return Policy(model, tokenizer or tokenizer_of(spec), policy.model)


def in_float32(policy: ModelSpec) -> ModelSpec:
    """Return the spec of a policy as it is trained: in float32 unless it says otherwise."""
    return policy.model_copy(update={"dtype": "float32"}) if policy.dtype == "auto" else policy


def watching(tell: Tell) -> Any:
    """Return a callback of transformers' trainer that tells each step, takes its time and seals checkpoints."""
    from transformers import TrainerCallback

    class Watching(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
        begun = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002  # as called
            self.begun = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002  # as called
            if logs and "loss" in logs:
                state.log_history[-1]["seconds"] = time.monotonic() - self.begun
                tell(state.global_step, state.max_steps, state.log_history[-1])

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002  # as called
            if state.is_world_process_zero:
                seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    return Watching()
