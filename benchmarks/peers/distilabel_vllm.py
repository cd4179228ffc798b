"""The prompts through distilabel: a pipeline with its vLLM class, in its own environment."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from prompts import marginal, read


def main(prompts: str, model: str, max_tokens: str, _threads: str) -> None:
    """Run and print the figures."""
    from distilabel.models import vLLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    def run(rows: Sequence[dict[str, str]]) -> tuple[float, int]:
        started = time.perf_counter()
        data = [{"instruction": row["user"], "system_prompt": row["system"]} for row in rows]
        with Pipeline(name="bench") as pipeline:
            load = LoadDataFromDicts(data=data, batch_size=16)
            llm = vLLM(
                model=model,
                dtype="bfloat16",
                extra_kwargs={"enforce_eager": True, "max_model_len": 2048},
                generation_kwargs={"temperature": 0.0, "max_new_tokens": int(max_tokens)},
            )
            load >> TextGeneration(llm=llm, input_batch_size=16, use_system_prompt=True)
        made = pipeline.run(use_cache=False)["default"]["train"]
        seconds = time.perf_counter() - started
        tokens = sum(row["distilabel_metadata"]["statistics_text_generation_0"]["output_tokens"][0] for row in made)
        return seconds, tokens

    print(json.dumps(marginal(run, read(Path(prompts)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
