"""Sentence vectors from an encoder of transformers, pooled by the mean over the tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import AutoModel

from normloom.core.errors import ModelError
from normloom.core.models.protocol import ModelSpec
from normloom.models.files.locate import locate
from normloom.models.loading import context_limit, load, tokenizer_of
from normloom.models.registry import parse_options
from normloom.models.transformers.packing import batches


class Options(BaseModel):
    """Settings of this engine in `ModelSpec.options`."""

    model_config = ConfigDict(extra="forbid")

    batch: int = Field(32, ge=1)  # texts in one forward pass
    batch_tokens: int = Field(16384, ge=1)  # the most that a batch holds, padding included
    max_length: int | None = Field(None, ge=1)  # tokens read of a text; by default what the model was tuned with


class SentenceEmbedder:
    """An `Embedder` over a sentence-transformers model with mean pooling.

    A text longer than the model's limit (256 tokens for all-MiniLM-L6-v2) is cut there, as
    sentence-transformers does. `dtype` auto is float32: distances are compared with thresholds.
    """

    def __init__(self, spec: ModelSpec, *, threads: int | None = None) -> None:
        self.options = parse_options(Options, spec)
        spec = spec.model_copy(update={"dtype": "float32"}) if spec.dtype == "auto" else spec
        limit = _tuned_length(spec)
        self.tokenizer = tokenizer_of(spec)
        self.model = load(AutoModel, spec, threads=threads)
        self.limit = context_limit(self.model.config, self.tokenizer, self.options.max_length or limit)
        self.dimensions = int(self.model.config.hidden_size)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, float32, shape (texts, dimensions)."""
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        if not texts:
            return vectors
        ids = self.tokenizer(list(texts), truncation=True, max_length=self.limit)["input_ids"]
        lengths = [len(tokens) for tokens in ids]
        for batch in batches(lengths, rows=self.options.batch, tokens=self.options.batch_tokens):
            padded = self.tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt")
            vectors[batch] = self._pooled(padded.to(self.model.device))
        return vectors

    def _pooled(self, inputs: dict[str, torch.Tensor]) -> np.ndarray:
        hidden = self.model(**inputs).last_hidden_state.float()
        mask = inputs["attention_mask"][:, :, None].float()
        mean = (hidden * mask).sum(1) / mask.sum(1)
        unit: np.ndarray = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
        return unit


def _tuned_length(spec: ModelSpec) -> int | None:
    """Return the length that sentence-transformers cuts texts at; raises `ModelError` for pooling other than mean."""
    directory = locate(spec)
    pooling = directory / "1_Pooling" / "config.json"
    if pooling.exists() and not json.loads(pooling.read_text()).get("pooling_mode_mean_tokens", False):
        raise ModelError(f"model {spec.model!r} does not pool by the mean ({pooling}); only mean pooling is supported")
    settings = directory / "sentence_bert_config.json"
    stated = json.loads(settings.read_text()).get("max_seq_length") if settings.exists() else None
    return int(stated) if stated else None
