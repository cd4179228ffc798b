"""The files of a product as a directory that an engine loads like any other model."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path

from normloom.core.errors import ModelError
from normloom.core.machine.cache import cache_dir
from normloom.core.machine.object_path import fetched
from normloom.core.machine.once import made_once
from normloom.core.models.product_model import ProductSpec
from normloom.core.models.protocol import ModelSpec
from normloom.models.files.digests import file_digest
from normloom.models.files.locate import locate

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_PICKLED = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}


def plain_spec(spec: ProductSpec) -> ModelSpec:
    """Return the spec of a published product's model as a local directory; raises ModelError if it cannot be loaded.

    An adapter is laid next to the files of its base, which may be converted or downloaded first: transformers then
    loads both.
    """
    folder = require_files(spec)
    directory = _joined(locate(spec.plain), folder) if spec.adapter else folder
    return spec.plain.model_copy(update={"model": str(directory), "revision": None})


def require_files(spec: ProductSpec) -> Path:
    """Return the folder of a product's model; raises ModelError if it is not there or cannot be loaded safely."""
    if spec.folder is None:
        raise ModelError(f"model out of {spec.product!r}: its product has not been built yet")
    folder = fetched(spec.folder)
    if pickled := sorted(path.name for path in folder.rglob("*") if path.suffix in _PICKLED):
        raise ModelError(f"model out of {spec.product!r}: {pickled[0]} may hold a pickle; save safetensors instead")
    wanted = ADAPTER if spec.adapter else ("config.json",)
    if missing := [name for name in wanted if not (folder / name).is_file()]:
        raise ModelError(f"model out of {spec.product!r}: {missing[0]} is missing from {folder}")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"model out of {spec.product!r}: no *.safetensors in {folder}")
    return folder


def base_of(folder: Path) -> str | None:
    """Return the name of the model that an adapter in a folder is for; None if it holds no adapter."""
    try:
        return str(json.loads((folder / ADAPTER[0]).read_text())["base_model_name_or_path"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / ADAPTER[0]} must name base_model_name_or_path: {error!r}") from error


def _joined(base: Path, adapter: Path) -> Path:
    """Return a directory with links to the files of a base model and copies of those of its adapter."""
    parts = [str(base), *(file_digest(adapter / name) for name in ADAPTER)]
    name = f"adapted-{blake2b(' '.join(parts).encode(), digest_size=10).hexdigest()}"

    def join(draft: Path) -> None:
        draft.mkdir()
        for path in base.iterdir():
            if path.is_file() and path.name not in ADAPTER:
                (draft / path.name).symlink_to(path.resolve())
        for one in ADAPTER:
            (draft / one).write_bytes((adapter / one).read_bytes())

    return made_once(cache_dir() / "models" / name, join)
