"""Settings of the engine `vllm`, apart from it so that keys are computed without its libraries."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Rank = Literal[1, 8, 16, 32, 64, 128, 256, 320, 512]  # that vLLM may be loaded for


class Options(BaseModel):
    """Settings of this engine in `ModelSpec.options`; no key holds those declared with `exclude=True`."""

    model_config = ConfigDict(extra="forbid")

    max_length: int | None = Field(None, ge=1)  # lowers the model's own limit of prompt and answer
    template: dict[str, Any] = Field(default_factory=dict)  # variables of the chat template

    # What is computed side by side, and how: results change by rounding. None is vLLM's own choice.
    max_num_seqs: int | None = Field(None, ge=1)  # sequences in one step
    max_num_batched_tokens: int | None = Field(None, ge=1)  # tokens in one step
    enforce_eager: bool | None = None  # None compiles on GPUs, and not on processors, where that takes minutes
    tensor_parallel: int | None = Field(None, ge=1)  # GPUs that share the model; None takes all that the actor has
    prefix_caching: bool = True  # keeps what prompts begin with

    # Room alone: no result changes.
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1, exclude=True)  # share of each GPU, weights included
    kv_cache_gib: float | None = Field(
        None, gt=0, exclude=True
    )  # for the cache, in that share's place; 2 on processors
    max_lora_rank: Rank | None = Field(None, exclude=True)  # of adapters; None serves none, or 16 if a stage has one
    sleep: bool = Field(default=False, exclude=True)  # lets an idle model leave its GPU and wait in the host's memory
