"""How much memory a process and those it started hold, on the host and on GPUs."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of host memory (resident, pages shared with others included) and of GPU memory."""

    host: int = 0
    device: int = 0

    @classmethod
    def most(cls, uses: Iterable[MemoryUse]) -> MemoryUse:
        """Return the largest of each."""
        known = list(uses)
        return cls(max((use.host for use in known), default=0), max((use.device for use in known), default=0))


def memory_use() -> MemoryUse:
    """Return what this process and its children hold. GPU memory needs the package `nvidia-ml-py`; 0 without it."""
    import psutil

    process = psutil.Process()
    family = [process, *process.children(recursive=True)]
    host = 0
    for member in family:
        with suppress(psutil.NoSuchProcess):
            host += member.memory_info().rss
    return MemoryUse(host, _on_devices({member.pid for member in family}))


def _on_devices(processes: set[int]) -> int:
    try:
        import pynvml

        pynvml.nvmlInit()  # pragma: no cover  # the package is for machines with a GPU
    except Exception:  # noqa: BLE001  # no package, no driver or no GPU: each is another error
        return 0
    return _as_told_by(pynvml, processes)  # pragma: no cover  # there is a GPU


def _as_told_by(nvml: Any, processes: set[int]) -> int:  # pragma: no cover  # a GPU's driver answers
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
        running = [use for handle in handles for use in nvml.nvmlDeviceGetComputeRunningProcesses(handle)]
        return sum(use.usedGpuMemory or 0 for use in running if use.pid in processes)
    finally:
        nvml.nvmlShutdown()
