"""How the processes of the engine vllm start, or why they do not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil
import pytest
from tiny_models import CONTEXT, save_tiny_llama
from vllm_engine import ENDED_SECONDS, needs_vllm, processes_of, spec

from normloom.core.errors import ConfigError, ModelError
from normloom.models import ModelSpec, load_model

pytestmark = needs_vllm


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"), heads=1)


def why_not(model: ModelSpec) -> str:
    """Return why the model is not loaded."""
    with pytest.raises(ModelError) as raised:
        load_model(model, threads=1)
    return str(raised.value)


class TestStart:
    def test_an_engine_that_does_not_start_says_why(self, tiny: Path) -> None:
        before = processes_of(os.getpid())
        said = why_not(spec(str(tiny), kv_cache_gib=1e-5))
        assert f"vLLM failed to start model '{tiny}': ValueError: No available memory for the cache" in said
        assert psutil.wait_procs(processes_of(os.getpid(), but=before), ENDED_SECONDS)[1] == []

    def test_a_setting_that_vllm_refuses_is_said(self, tiny: Path) -> None:
        said = why_not(spec(str(tiny), max_num_batched_tokens=4))
        assert f"max_num_batched_tokens (4) is smaller than max_model_len ({CONTEXT})" in said

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"options": {"max_num_seqs": 0, "colour": 1}}, "max_num_seqs: .*colour: .*Known options: max_length"),
            ({"device": "cuda"}, "device 'cuda' is requested, but the vLLM installed here runs on 'cpu'"),
            ({"dtype": "float3"}, "unknown dtype 'float3'; use auto, float32, bfloat16, float16"),
        ],
    )
    def test_wrong_settings_are_named(self, tiny: Path, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            load_model(spec(str(tiny)).model_copy(update=changes))
