"""The processes of the engine vllm: how they start, who holds them, how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from tiny_models import CONTEXT, NO_SYSTEM, save_tiny_llama
from transformers import LlamaConfig, LlamaForCausalLM
from vllm_engine import ENDED_SECONDS, needs_vllm, processes_of, spec

from normloom.core.errors import ConfigError, ModelError
from normloom.models import GenerateRequest, ModelSpec, Sampling, load_model
from normloom.models.transformers.engine import TransformersModel

pytestmark = needs_vllm

HOLDER = """
import json, os, sys
import psutil
import normloom.models.vllm.process  # once for both holders: this takes most of a start
from normloom.core.errors import EngineDiedError
from normloom.models import GenerateRequest, ModelSpec, Sampling, load_model

ended, end = os.pipe()
other = os.fork()
forked = not other
model = load_model(ModelSpec.model_validate_json(sys.argv[1]), threads=1)
request = GenerateRequest(
    instruction="Be brief.", prompt="cats <|im_end|> dogs", seeds=(0,), sampling=Sampling(temperature=0, max_tokens=12)
)
print(json.dumps([forked, os.getpid(), model.generate([request])[0].candidates[0].text]), flush=True)
if forked:
    os.close(end)
    os.read(ended, 1)  # until the other one has ended, unless this one is killed
for command in [] if forked else sys.stdin:
    children = [process for process in psutil.Process().children() if process.pid != other]
    (core,) = [process for process in children if "EngineCore" in " ".join(process.cmdline())]
    core.kill()
    for _ in range(2):  # while the engine dies, and when it is dead
        try:
            model.generate([request])
        except EngineDiedError as error:
            print(json.dumps(str(error)), flush=True)
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = save_tiny_llama(tmp_path_factory.mktemp("tiny"), template=NO_SYSTEM)
    torch.manual_seed(0)
    config = LlamaConfig.from_pretrained(directory, head_dim=32)  # vLLM's kernels for processors know none smaller
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


@dataclass(frozen=True)
class Holders:
    """Two processes that hold the model, one a fork of the other, and what each answered."""

    first: subprocess.Popen[str]
    forked: psutil.Process
    texts: tuple[str, str]


@pytest.fixture(scope="module")
def holders(tiny: Path) -> Iterator[Holders]:
    command = [sys.executable, "-c", HOLDER, spec(str(tiny), kv_cache_gib=0.1).model_dump_json()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout is not None
            answers = [json.loads(first.stdout.readline()) for _ in range(2)]
            (_, _, text), (_, forked, other) = sorted(answers)
            yield Holders(first, psutil.Process(forked), (text, other))
        finally:
            first.kill()


class TestHolder:
    """A process that holds a model without a system role, as an actor does."""

    def test_a_model_without_a_system_role_reads_the_instruction(self, holders: Holders, tiny: Path) -> None:
        reference = load_model(ModelSpec(model=str(tiny), dtype="float32", device="cpu"), threads=1)
        assert isinstance(reference, TransformersModel)
        request = GenerateRequest(
            instruction="Be brief.",
            prompt="cats <|im_end|> dogs",
            seeds=(0,),
            sampling=Sampling(temperature=0, max_tokens=12),
        )
        expected = reference.generate([request])[0].candidates[0].text
        assert holders.texts == (expected, expected)

    def test_no_process_outlives_a_holder_that_is_killed(self, holders: Holders) -> None:
        started = processes_of(holders.forked.pid)
        assert len(started) >= 2
        others = processes_of(holders.first.pid, but=[holders.forked, *started])
        holders.forked.kill()
        assert psutil.wait_procs(started, ENDED_SECONDS)[1] == []
        assert processes_of(holders.first.pid) == others

    def test_an_engine_that_dies_is_said_and_its_holder_ends_with_all_it_started(self, holders: Holders) -> None:
        holder = holders.first
        assert holder.stdin is not None
        assert holder.stdout is not None
        started = processes_of(holder.pid)
        holder.stdin.write("kill\n")
        holder.stdin.flush()
        for _ in range(2):
            assert "engine process with model" in json.loads(holder.stdout.readline())
        holder.stdin.close()
        holder.wait(60)
        assert psutil.wait_procs(started, ENDED_SECONDS)[1] == []


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
