"""The prompts through Ray Data LLM: its vLLM processor over a data set, in its own environment."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prompts import marginal, read


def main(prompts: str, model: str, max_tokens: str, threads: str) -> None:
    """Run and print the figures."""
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    ray.init(address="local", num_cpus=int(threads) + 2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    config = vLLMEngineProcessorConfig(
        model_source=model,
        engine_kwargs={"enforce_eager": True, "dtype": "bfloat16", "max_model_len": 2048},
        concurrency=1,
        accelerator_type=None,
        placement_group_config={"bundles": [{"CPU": 1}]},
        log_engine_metrics=False,
    )

    def ask(row: dict[str, Any]) -> dict[str, Any]:
        messages = [{"role": "system", "content": row["system"]}, {"role": "user", "content": row["user"]}]
        return {"messages": messages, "sampling_params": {"temperature": 0, "max_tokens": int(max_tokens)}}

    processor = build_processor(
        config,
        preprocess=ask,
        postprocess=lambda row: {"text": row["generated_text"], "tokens": row["num_generated_tokens"]},
    )

    def run(rows: Sequence[dict[str, str]]) -> tuple[float, int]:
        started = time.perf_counter()
        with TemporaryDirectory() as folder:
            processor(ray.data.from_items(list(rows))).write_parquet(folder)
            seconds = time.perf_counter() - started
            tokens = ray.data.read_parquet(folder).sum("tokens")
        return seconds, int(tokens)

    print(json.dumps(marginal(run, read(Path(prompts)))))


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    main(*sys.argv[1:])
