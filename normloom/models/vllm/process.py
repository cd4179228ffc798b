"""vLLM's asynchronous engine behind ordinary calls: its start, its event loop in a thread, its end."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from itertools import count
from multiprocessing import active_children, resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from vllm import AsyncEngineArgs, SamplingParams, TokensPrompt
from vllm.exceptions import VLLMValidationError
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from normloom.core.errors import ConfigError, EngineDiedError, ModelError
from normloom.models.requests.progress import Teller, current_teller
from normloom.models.vllm import guard as vllm_guard

_Result = TypeVar("_Result")

_NO_COMPILING = "TORCH_COMPILE_DISABLE"  # of torch; 1 compiles nothing
LAST_SECONDS = 2.0  # that the engine's processes have to end by themselves; what is left of them is killed
DEVICE: str = current_platform.device_type  # that this vLLM was built for


class _Steps:
    """Counts, over the engine's steps, the slots of its batch and those in use; vLLM calls it after each."""

    def __init__(self) -> None:
        self._counted = (0, 0)
        self._changing = threading.Lock()
        self.capacity = 0

    def take(self) -> dict[str, float]:
        """Return the counts since this was last asked."""
        with self._changing:
            (slots, used), self._counted = self._counted, (0, 0)
        return {"slots": slots, "slots_used": used}

    def __call__(self, config: Any, _: int) -> _Steps:
        """Be vLLM's logger of one engine."""
        self.capacity = config.scheduler_config.max_num_seqs
        return self

    def record(self, _: Any, iteration_stats: Any, **__: Any) -> None:
        """Count one step; each sequence that got a token had a slot in it."""
        if iteration_stats is not None and iteration_stats.num_generation_tokens:
            with self._changing:
                slots, used = self._counted
                self._counted = (slots + self.capacity, used + iteration_stats.num_generation_tokens)

    def log_engine_initialized(self) -> None:
        """Part of vLLM's interface."""

    def log(self) -> None:
        """Part of vLLM's interface."""


class EngineProcess:
    """A running engine. Several threads may call it at once: what they ask is one batch.

    `name` is the model's, for messages; `arguments` are vLLM's own. Raises `ModelError` if it does not start,
    and `EngineDiedError` once its process is gone.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], *, threads: int | None) -> None:
        self._name = name
        self._numbers = count()
        self._steps = _Steps()
        self._closed = False
        self._adding = threading.Lock()
        self._adapters: dict[Path, LoRARequest] = {}
        self._directory = TemporaryDirectory(prefix="normloom-vllm-", ignore_cleanup_errors=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()
        resource_tracker.ensure_running()  # before the mark is set: it is this process's, not the engine's
        mark = uuid.uuid4().hex
        guard = [sys.executable, str(Path(vllm_guard.__file__)), mark]
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603  # a file of ours
        atexit.register(self.close)
        self._errors = Path(self._directory.name) / "errors.log"
        try:
            settings = _settings(mark, _log_to(self._errors), threads, eager=bool(arguments.get("enforce_eager")))
            with _environment(settings):
                self._engine = self._call(self._start(arguments))
            self._call(self._one([0], {"max_tokens": 1}))  # shows what the model needs and vLLM has not got here
        except BaseException as error:
            why = self._reason(error)
            self.close()
            if isinstance(error, Exception):
                raise ModelError(f"vLLM failed to start model {name!r}: {why}") from error
            raise

    def adapter(self, folder: Path) -> LoRARequest:
        """Return what names the adapter in a folder, which is loaded if it is new; raises `ModelError`."""
        with self._adding:
            if folder not in self._adapters:
                number = len(self._adapters) + 1
                request = LoRARequest(f"adapter-{number}", number, str(folder))
                try:
                    self._call(self._engine.add_lora(request))
                except ModelError:
                    raise
                except Exception as error:  # vLLM raises what its layers do
                    why = _brief(str(error))
                    raise ModelError(f"vLLM cannot load the adapter {folder} of {self._name!r}: {why}") from error
                self._adapters[folder] = request
            return self._adapters[folder]

    def run(
        self, wanted: Sequence[tuple[Sequence[int], Mapping[str, Any]]], lora: LoRARequest | None = None
    ) -> list[Any]:
        """Return vLLM's `RequestOutput` for each sequence wanted, in their order.

        Each is the tokens of its prompt and the settings of vLLM's sampling, with `json_schema` (text or None) and the
        `media` that the prompt has a token each of, as `Placeholders.decoded` gives them. `lora` is the adapter with
        which they are asked.
        """
        return self._call(self._run(wanted, current_teller(), lora))

    @property
    def requests_at_once(self) -> int:
        """How many sequences are in one step at most."""
        return self._steps.capacity

    def take_steps(self) -> dict[str, float]:
        """Return `slots` and `slots_used` over the steps since this was last asked."""
        return self._steps.take()

    def sleep(self) -> None:
        """Give the device's memory back; the weights wait in the machine's."""
        self._call(self._engine.sleep(level=1))

    def wake(self) -> None:
        """Take the device's memory again."""
        self._call(self._engine.wake_up())

    def close(self) -> None:
        """End the engine's processes; calls that wait for it raise `ModelError`."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        assert self._guard.stdin is not None
        if not hasattr(self, "_engine"):
            self._guard.stdin.close()  # first: a start that was interrupted would be waited for
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        vars(self).pop("_engine", None)  # it must not be found when Python ends
        active_children()  # takes note of those that ended, so that they are no zombies
        self._guard.stdin.close()
        self._guard.wait()
        self._directory.cleanup()

    async def _start(self, arguments: Mapping[str, Any]) -> Any:
        return AsyncLLM.from_engine_args(
            AsyncEngineArgs(**arguments, disable_log_stats=True), stat_loggers=[self._steps]
        )

    async def _run(
        self, wanted: Sequence[tuple[Sequence[int], Mapping[str, Any]]], tell: Teller, lora: LoRARequest | None
    ) -> list[Any]:
        come = count(1)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._one(*each, lora)) for each in wanted]
                for task in tasks:
                    task.add_done_callback(lambda _: tell(next(come) / len(wanted)))
        except ExceptionGroup as errors:
            raise self._told(errors.exceptions[0]) from errors
        return [task.result() for task in tasks]

    async def _one(self, prompt: Sequence[int], settings: Mapping[str, Any], lora: LoRARequest | None = None) -> Any:
        settings = dict(settings)
        schema, media = settings.pop("json_schema", None), settings.pop("media", None)
        sampling = SamplingParams(
            **settings,
            output_kind=RequestOutputKind.FINAL_ONLY,
            structured_outputs=StructuredOutputsParams(json=schema) if schema is not None else None,
        )
        number = str(next(self._numbers))
        tokens = TokensPrompt(prompt_token_ids=list(prompt))
        if media:  # known by their hashes, so that vLLM encodes each once
            tokens["multi_modal_data"], tokens["multi_modal_uuids"] = media
        outputs = self._engine.generate(tokens, sampling, number, lora_request=lora)
        return [output async for output in outputs][-1]

    def _told(self, error: Exception) -> Exception:
        """Return the error as ours if it is not about a row."""
        if isinstance(error, EngineDeadError):
            return EngineDiedError(f"vLLM's engine process with model {self._name!r} died: {self._reason(error)}")
        if isinstance(error, (VLLMValidationError, ValueError)):  # the latter in older versions
            return ConfigError(f"vLLM refuses a request to model {self._name!r}: {_brief(str(error))}")
        return error

    def _reason(self, error: BaseException) -> str:
        """Return what the engine's processes logged first: the error that they send says only that they failed."""
        logged = self._errors.read_text().splitlines() if self._errors.exists() else []
        traced = next((at for at, line in enumerate(logged) if line.startswith("Traceback")), len(logged))
        said = next((at for at in range(traced + 1, len(logged)) if logged[at].strip(" ") == logged[at] != ""), None)
        return _brief(logged[said] if said else str(error) or type(error).__name__)

    def _call(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        if self._closed:
            coroutine.close()
            raise ModelError(f"model {self._name!r} is closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise ModelError(f"model {self._name!r} was closed while in use") from None
        except BaseException:
            future.cancel()  # interrupted while waiting: nobody wants the result any more
            raise

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if hasattr(self, "_engine"):
            self._engine.shutdown(timeout=LAST_SECONDS)


def _settings(mark: str, logging: Path, threads: int | None, *, eager: bool) -> dict[str, str]:
    """Return the environment in which the engine's processes start."""
    settings = {
        vllm_guard.MARK: mark,
        "SPT_NOENV": "1",  # the processes give themselves titles; these must not overwrite what the mark is in
        "VLLM_LOGGING_CONFIG_PATH": str(logging),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",  # the model's files are here
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # this process has threads, which a fork would lose with their locks
    }
    if current_platform.is_cpu():
        settings["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine computes itself: no two processes spin
        if threads is not None:  # vLLM would bind each engine to the same first cores
            settings |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}
        if eager and _NO_COMPILING not in os.environ:  # vLLM would still compile samplers: 15 s of the first request
            settings[_NO_COMPILING] = "1"
    return settings


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while, and undo what is changed meanwhile."""
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in os.environ.keys() | before.keys():
            if name not in before:
                del os.environ[name]
            elif os.environ.get(name) != before[name]:
                os.environ[name] = before[name]


def _log_to(errors: Path) -> Path:
    """Write a logging configuration for vLLM, errors to stderr and to a file, and return its path."""
    handlers = {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line"},
        "errors": {"class": "logging.FileHandler", "filename": str(errors), "delay": True},
    }
    configuration = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "vLLM %(levelname)s pid=%(process)d %(message)s"}},
        "handlers": handlers,
        "loggers": {"vllm": {"handlers": list(handlers), "level": "ERROR", "propagate": False}},
    }
    path = errors.with_name("logging.json")
    path.write_text(json.dumps(configuration))
    return path


def _brief(text: str) -> str:
    """Return the first two lines of a message, without what pydantic adds."""
    lines = [line.strip().split(" [type=")[0] for line in text.splitlines() if line.strip()]
    return " ".join(lines[:2])[:500]
