from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from vllm_server import vllm_server

from normloom.models import ModelSpec
from normloom.models.locate import PACKAGED, find, locate

SMOL = "SmolLM2-135M-Instruct"

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here: make install-vllm"),
    pytest.mark.skipif(find(SMOL) is None, reason=f"package {PACKAGED[SMOL].package} is not installed"),
]


def test_it_answers_a_chat_and_leaves_no_process(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with vllm_server(locate(ModelSpec(model=SMOL)), name=SMOL, log=log) as url:
        asked = {
            "model": SMOL,
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "max_tokens": 16,
            "temperature": 0,
        }
        response = httpx.post(f"{url}/chat/completions", json=asked, timeout=120)
    answer = response.raise_for_status().json()
    assert "Paris" in answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] > 0
    with pytest.raises(httpx.TransportError):
        httpx.get(url)
