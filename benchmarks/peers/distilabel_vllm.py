"""The prompts through distilabel: a pipeline that queries vLLM's own server, in its own environment.

distilabel's in-process vLLM class (1.5.3) passes `SamplingParams` an argument that vLLM 0.32 no longer has, so its
client is used. The server is started and stopped in each run.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from prompts import marginal, read

SERVER = "vllm.entrypoints.openai.api_server"


def main(prompts: str, model: str, max_tokens: str, _threads: str) -> None:
    """Run and print the figures."""
    from distilabel.models import ClientvLLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    def run(rows: Sequence[dict[str, str]]) -> tuple[float, int]:
        started = time.perf_counter()
        data = [{"instruction": row["user"], "system_prompt": row["system"]} for row in rows]
        with served(model) as address, Pipeline(name="bench") as pipeline:
            load = LoadDataFromDicts(data=data)
            llm = ClientvLLM(
                base_url=f"{address}/v1",
                tokenizer=model,
                generation_kwargs={"temperature": 0.0, "max_new_tokens": int(max_tokens)},
            )
            load >> TextGeneration(llm=llm, use_system_prompt=True)
            made = pipeline.run(use_cache=False)["default"]["train"]
        seconds = time.perf_counter() - started
        tokens = sum(row["distilabel_metadata"]["statistics_text_generation_0"]["output_tokens"] for row in made)
        return seconds, tokens

    print(json.dumps(marginal(run, read(Path(prompts)))))


@contextmanager
def served(model: str) -> Iterator[str]:
    """Serve the model on a free port of loopback and yield the address; the caller's time limit is the only one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--dtype", "bfloat16", "--enforce-eager", "--max-model-len", "2048"]
    command = [sys.executable, "-m", SERVER, "--model", model, "--host", "127.0.0.1", "--port", str(port), *options]
    with subprocess.Popen(command, stdout=sys.stderr) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            while not answers(address):
                if server.poll() is not None:
                    raise SystemExit(f"vLLM's server ended with {server.returncode}")
                time.sleep(0.2)
            yield address
        finally:
            server.terminate()


def answers(address: str) -> bool:
    """Say whether the server is up."""
    with suppress(httpx.TransportError):
        return httpx.get(f"{address}/health").is_success
    return False


if __name__ == "__main__":
    main(*sys.argv[1:])
