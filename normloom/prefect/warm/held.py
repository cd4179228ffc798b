"""The warm process as `normloom serve` keeps it, and Prefect's runner that uses it."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from prefect.runner import Runner
from prefect.settings import get_current_settings
from prefect.utilities.processutils import command_to_string

from normloom.prefect.warm import ask

END_SECONDS = 10.0


@dataclass
class WarmProcess:
    """A process that has imported libraries and is copied for each run; another is started if it has died."""

    environment: Mapping[str, str]
    name: str = ""
    process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return the command of a run in place of `python -m prefect.engine`."""
        if self.process is None or self.process.poll() is not None:
            self.end()
            self._start()
        return [sys.executable, "-I", "-S", str(Path(ask.__file__)), self.name]

    def end(self) -> None:
        """End the process, and with it the copies that are at work."""
        if self.process and self.process.stdin:
            self.process.stdin.close()
            try:
                self.process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:  # it is importing
                self.process.kill()
                self.process.wait()

    def _start(self) -> None:
        self.name = f"normloom-{secrets.token_hex(16)}"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"\0{self.name}")
            listener.listen()
            self.process = subprocess.Popen(  # noqa: S603  # a module of ours
                [sys.executable, "-m", "normloom.prefect.warm.forks", str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                env=self.environment,
            )


@contextmanager
def warm_process() -> Iterator[WarmProcess | None]:
    """Keep a warm process with the environment that a runner gives its runs; None on systems that it cannot be on."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        yield None  # pragma: no cover  # tests run on Linux
        return  # pragma: no cover
    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    warm = WarmProcess({**os.environ, **settings})
    warm.command()
    try:
        yield warm
    finally:
        warm.end()


class WarmRunner(Runner):
    """Prefect's runner, whose runs are copies of a warm process, and which is cancelled by SIGTERM as by Ctrl-C."""

    def __init__(self, warm: WarmProcess | None, **settings: Any) -> None:
        super().__init__(**settings)
        self._warm = warm
        self._end: Callable[[], object] | None = None

    async def start(self, *given: Any, **named: Any) -> None:
        """Run what is due until cancelled."""
        work, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert work
        self._end = partial(loop.call_soon_threadsafe, work.cancel)
        await super().start(*given, **named)

    async def __aenter__(self) -> Self:
        """Have what Prefect would start with `python -m prefect.engine` started with the warm process's command."""
        await super().__aenter__()
        poller: Any = getattr(self, "_scheduled_run_poller", None)  # Prefect has no public name for either
        if self._warm and hasattr(poller, "_resolve_starter"):
            resolve, warm = poller._resolve_starter, self._warm  # noqa: SLF001  # as above

            def starter(flow_run: Any) -> Any:
                found = resolve(flow_run)
                if getattr(found, "_command", "") is None:
                    found._command = command_to_string(warm.command())  # noqa: SLF001  # as above
                return found

            poller._resolve_starter = starter  # noqa: SLF001  # as above
        return self

    def handle_sigterm(self, *_: Any, **__: Any) -> None:
        """Stop the builds, which Prefect's own runner leaves alone.

        Raising SIGINT is not enough: it is ignored in a process that a script started with `&`.
        """
        if self._end:
            with suppress(RuntimeError):  # the loop has ended
                self._end()
