"""What the trainers of transformers are told alike, whatever they train on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger(__name__)


class Schedule(Protocol):
    """How long and how fast a policy is trained."""

    @property
    def learning_rate(self) -> float:
        """At the end of the warm-up."""

    @property
    def warmup_steps(self) -> int:
        """Steps until the learning rate is reached."""

    @property
    def epochs(self) -> float:
        """Passes over the data."""

    @property
    def max_steps(self) -> int | None:
        """Steps after which training ends; None: when the epochs are done."""

    @property
    def accumulate(self) -> int:
        """Forward passes to a step."""

    @property
    def seed(self) -> int:
        """Of the adapter's weights and the order of the data."""

    @property
    def checkpoint_steps(self) -> int:
        """Steps between checkpoints."""


def settings_of(schedule: Schedule, scratch: Path, *, on_cpu: bool) -> dict[str, Any]:
    """Return the arguments of transformers' TrainingArguments that all trainings share."""
    return {
        "output_dir": str(scratch),
        "learning_rate": schedule.learning_rate,
        "warmup_steps": schedule.warmup_steps,
        "num_train_epochs": schedule.epochs,
        "max_steps": schedule.max_steps or -1,
        "gradient_accumulation_steps": schedule.accumulate,
        "seed": schedule.seed,
        "max_length": None,  # what is too long has been dropped
        "bf16": False,
        "use_cpu": on_cpu,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": schedule.checkpoint_steps,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
    }


def on_one_gpu(configured: Any) -> Any:
    """Return the arguments of a trainer that does not spread a batch over all GPUs which its process sees."""
    if configured.n_gpu > 1:  # a batch would grow with their number
        log.warning("%d GPUs are visible, one is asked for: a policy is trained on the first", configured.n_gpu)
        configured._n_gpu = 1  # noqa: SLF001  # as transformers' own Trainer does where it must not spread
    return configured
