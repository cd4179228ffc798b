"""The engine for GPUs, which runs on processors too: vLLM."""

from __future__ import annotations

import json
import threading
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig

from normloom.core.errors import ConfigError, ModelError
from normloom.core.models.protocol import (
    Candidate,
    Completion,
    GenerateRequest,
    ModelSpec,
    Sampling,
    ScoreRequest,
    Scores,
)
from normloom.models.files.locate import locate
from normloom.models.loading import context_limit, dtype_of, end_tokens, tokenizer_of
from normloom.models.media.senses import config_senses
from normloom.models.product_files import ADAPTER
from normloom.models.registry import parse_options
from normloom.models.requests.chat import Chat
from normloom.models.requests.prompts import Prompt, Prompter
from normloom.models.requests.reasoning import candidate
from normloom.models.transformers.decoding import Stops
from normloom.models.vllm.media import Decoded, Placeholders
from normloom.models.vllm.options import Options

CPU_CACHE_GIB = 2.0
CPU_STEP_TOKENS = 2048
_GIB = 2**30


class VllmModel:
    """A `LanguageModel` over any causal model that vLLM knows and that has a chat template; some see or hear.

    Several threads may call it: what they ask for is one batch. Raises `ModelError` if vLLM or the model cannot be
    had, `ConfigError` for a wrong setting, `EngineDiedError` once vLLM's own process is gone.
    """

    def __init__(self, spec: ModelSpec, *, threads: int | None = None) -> None:
        self.name = spec.model
        self.options = parse_options(Options, spec)
        process = _vllm_process(spec)
        self.tokenizer = tokenizer_of(spec)
        directory = locate(spec)
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        kinds = config_senses(directory)
        senses = Placeholders(directory, config, kinds=kinds, name=spec.model) if kinds else None
        if senses and not self.tokenizer.chat_template:
            self.tokenizer.chat_template = senses.template
        chat = Chat(self.tokenizer, name=spec.model, variables=self.options.template, senses=senses)
        natural = context_limit(config, self.tokenizer)
        limit = min(natural, self.options.max_length or natural)
        room = min(natural, limit + 1)  # vLLM writes a token even if a prompt is only scored
        self._senses = senses
        self._writing = Prompter(chat, limit)
        self._scoring = Prompter(chat, room - 1)
        self._prompting = threading.Lock()  # tokenizers are not made for several threads
        self._ends = end_tokens(_stated_end(directory, config), self.tokenizer)
        self._usage: Counter[str] = Counter()
        self._lora: Any = None  # vLLM's name for the adapter that this one has
        self._counting = threading.Lock()
        arguments = _arguments(spec, self.options, directory, room, device=process.DEVICE)
        self._engine = process.EngineProcess(spec.model, arguments, threads=threads)
        self._sleeps = bool(arguments.get("enable_sleep_mode"))

    def _decoded(self, prompt: Prompt) -> Decoded | None:
        return self._senses.decoded(prompt.media) if self._senses and prompt.media else None

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scores]:
        """Return the log-probabilities of each request's answers, in the order of the requests."""
        with self._prompting:
            prompts = [self._scoring.scoring(request) for request in requests]
            answers = [self._scoring.answers(request) for request in requests]
        wanted = [
            (
                sequence,
                {
                    "max_tokens": 1,
                    "temperature": 0,
                    "logprob_token_ids": list(dict.fromkeys(tokens)),
                    "detokenize": False,
                    "media": self._decoded(prompt),
                },
            )
            for prompt, tokens in zip(prompts, answers, strict=True)
            for sequence in (prompt.sequences() if prompt.branches and prompt.error is None else [])
        ]
        steps = iter(self._run(wanted))
        return [
            Scores(
                logprobs=() if prompt.error else tuple(_logprobs(next(steps), tokens) for _ in prompt.branches),
                tokens_in=prompt.tokens,
                error=prompt.error,
            )
            for prompt, tokens in zip(prompts, answers, strict=True)
        ]

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """Return each request's candidates in the order of its seeds, in the order of the requests."""
        with self._prompting:
            prompts = [self._writing.writing(request) for request in requests]
        wanted = [
            (prompt.sequences()[0], {**self._settings(request, seed), "media": self._decoded(prompt)})
            for prompt, request in zip(prompts, requests, strict=True)
            for seed in (request.seeds if prompt.error is None else ())
        ]
        outputs = iter(self._run(wanted))
        return [
            Completion(
                candidates=tuple(
                    self._candidate(next(outputs), seed, request.sampling)
                    for seed in (request.seeds if prompt.error is None else ())
                ),
                tokens_in=prompt.tokens,
                error=prompt.error,
            )
            for prompt, request in zip(prompts, requests, strict=True)
        ]

    def adapted(self, folder: Path) -> VllmModel:
        """Return the model with an adapter; both are served by the same engine, and may be called side by side."""
        rank, most = _rank(folder), self.options.max_lora_rank
        if most is None or rank > most:
            raise ConfigError(
                f"adapter {folder} has rank {rank}, and model {self.name!r} is loaded for adapters up to rank "
                f"{most or 0}: set options.max_lora_rank of the model"
            )
        one = copy(self)
        vars(one)["_lora"] = self._engine.adapter(folder)
        return one

    @property
    def requests_at_once(self) -> int:
        """How many texts are written at once; those of all parts and adapters share them."""
        most: int = self._engine.requests_at_once
        return most

    def take_usage(self) -> dict[str, float]:
        """Return what was counted since this was last asked."""
        with self._counting:
            usage = dict(self._usage)
            self._usage.clear()  # those with an adapter count in it, too
        return {**usage, **self._engine.take_steps()}

    def sleep(self) -> bool:
        """Leave the GPU until `wake`; no call may be under way. Returns False if the model stays."""
        if self._sleeps:
            self._engine.sleep()
        return self._sleeps

    def wake(self) -> None:
        """Take the GPU again."""
        if self._sleeps:
            self._engine.wake()

    def close(self) -> None:
        """End vLLM's processes; calls under way raise `ModelError`."""
        self._engine.close()

    def _run(self, wanted: Sequence[tuple[Sequence[int], Mapping[str, Any]]]) -> list[Any]:
        outputs: list[Any] = self._engine.run(wanted, self._lora)
        with self._counting:
            self._usage["prompt_tokens"] += sum(len(output.prompt_token_ids) for output in outputs)
            self._usage["cached_tokens"] += sum(output.num_cached_tokens or 0 for output in outputs)
        return outputs

    def _settings(self, request: GenerateRequest, seed: int) -> dict[str, Any]:
        sampling = request.sampling
        return {
            **sampling.model_dump(exclude={"stop"}),
            "stop": list(sampling.stop),
            "stop_token_ids": sorted(self._ends),
            "seed": seed,
            "detokenize": bool(sampling.stop),  # for vLLM to see where they begin; the text is made here
            "json_schema": request.json_schema,
        }

    def _candidate(self, output: Any, seed: int, sampling: Sampling) -> Candidate:
        (written,) = output.outputs
        if written.finish_reason not in {"stop", "length"}:
            raise ModelError(f"vLLM ended a text with finish reason {written.finish_reason!r}; expected stop or length")
        text = self._decode(written.token_ids)
        return candidate(
            text=Stops(self._ends, sampling.stop, self._decode).cut(text),
            seed=seed,
            finish=written.finish_reason,
            tokens_out=len(written.token_ids),
        )

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))


def _vllm_process(spec: ModelSpec) -> ModuleType:
    """Import what imports vLLM."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of vLLM and torch, among themselves
            return import_module("normloom.models.vllm.process")
    except (ImportError, OSError, RuntimeError) as error:  # the latter of libraries made for another torch
        raise ModelError(
            f"model {spec.model!r}: engine 'vllm' cannot be imported ({str(error).splitlines()[0]}); "
            "docs/engines.md says how to install it: extra 'gpu' for GPUs, 'make install-vllm' for processors"
        ) from error


def _arguments(spec: ModelSpec, options: Options, directory: Path, room: int, *, device: str) -> dict[str, Any]:
    """Return vLLM's own settings for a model in `directory`; `room` is for the tokens of prompt and answer."""
    if spec.device != "auto" and torch.device(spec.device).type != device:
        raise ConfigError(
            f"model {spec.model!r}: device {spec.device!r} is requested, but the vLLM installed here runs on {device!r}"
        )
    cpu = device == "cpu"
    cache = options.kv_cache_gib or (CPU_CACHE_GIB if cpu else None)
    settings = {
        "model": str(directory),
        "max_model_len": room,
        "dtype": str(dtype_of(spec, torch.device(device))).removeprefix("torch."),
        "enforce_eager": cpu if options.enforce_eager is None else options.enforce_eager,
        "tensor_parallel_size": options.tensor_parallel or (1 if cpu else torch.cuda.device_count()),
        "enable_prefix_caching": options.prefix_caching,
        "enable_sleep_mode": options.sleep and not cpu,
        "max_num_seqs": options.max_num_seqs,
        "max_num_batched_tokens": options.max_num_batched_tokens,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "kv_cache_memory_bytes": int(cache * _GIB) if cache else None,
        "enable_lora": options.max_lora_rank is not None,
        "max_lora_rank": options.max_lora_rank,
    }
    if cpu:
        # vLLM 0.32 on processors dies of a prompt that is read in several steps and answered with a seed: it then winds
        # the seed's generator back, which torch has for GPUs alone. So each prompt must fit into one step.
        settings["enable_chunked_prefill"] = False
        settings["max_num_batched_tokens"] = options.max_num_batched_tokens or max(room, CPU_STEP_TOKENS)
    return {name: value for name, value in settings.items() if value is not None}


def _rank(folder: Path) -> int:
    """Return the rank of the adapter in a folder, the largest if its layers differ."""
    path = folder / ADAPTER[0]
    try:
        told = json.loads(path.read_text())
        return max(int(rank) for rank in (told["r"], *(told.get("rank_pattern") or {}).values()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} does not describe a LoRA adapter: {error!r}") from error


def _logprobs(output: Any, tokens: Sequence[int]) -> tuple[float, ...]:
    (step,) = output.outputs[0].logprobs
    return tuple(step[token].logprob for token in tokens)


def _stated_end(directory: Path, config: Any) -> Any:
    """Return what the model states of its last token, as transformers would read it: one, several or none."""
    try:
        return GenerationConfig.from_pretrained(directory, local_files_only=True).eos_token_id
    except OSError:  # the model has no such file
        return config.get_text_config().eos_token_id
