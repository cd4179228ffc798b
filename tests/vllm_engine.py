"""What tests of the engine vllm share."""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec
from typing import Any

import psutil
import pytest

from normloom.models import ModelSpec

SLOTS = 32
ENDED_SECONDS = 10.0  # that an engine's processes may take to end after their holder

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here: make install-vllm")


def spec(model: str, **options: Any) -> ModelSpec:
    settings = {"kv_cache_gib": 0.5, "max_num_seqs": SLOTS, **options}
    return ModelSpec(engine="vllm", model=model, dtype="float32", options=settings)


def is_core(process: psutil.Process) -> bool:
    """Return whether this is the process in which vLLM computes: a spawned one, which now and then gets no title."""
    command = " ".join(process.cmdline())
    return "EngineCore" in command or "spawn_main" in command


def processes_of(pid: int, *, but: Collection[psutil.Process] = ()) -> list[psutil.Process]:
    """Return the processes under `pid` that belong to an engine, `but` those that were there before it.

    Python's own helper for shared memory is none of them, nor is one that has ended and nobody asked after.
    """
    below = (process for process in psutil.Process(pid).children(recursive=True) if process not in but)
    living = (process for process in below if process.status() != psutil.STATUS_ZOMBIE)
    return [process for process in living if "resource_tracker" not in " ".join(process.cmdline())]
