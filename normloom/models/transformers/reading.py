"""Forward passes of one causal model, and the keys and values of prompts that it need not read again."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from inspect import signature
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from normloom.models.transformers.media import Media
from normloom.models.transformers.mixing import Mixture

_KEPT = 4  # heads whose keys and values are kept
READ = "read_tokens"


class Prefix(NamedTuple):
    """Tokens already read, and their keys and values in each layer, (1, heads, tokens, width) each."""

    length: int = 0
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()

    def cache(self, rows: int) -> DynamicCache:
        """Return a new cache that holds the prefix for each of `rows` rows."""
        if not self.layers:
            return DynamicCache()
        return DynamicCache([(k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for k, v in self.layers])


class Reader:
    """Reads tokens with `model`, a causal model of transformers, those of `media` among them.

    With `mixture` the model has adapters. `usage` is where the tokens that are read count.
    """

    def __init__(
        self,
        model: Any,
        media: Media | None = None,
        *,
        mixture: Mixture | None = None,
        usage: Counter[str] | None = None,
    ) -> None:
        self.model = model
        self.media = media
        self.mixture = mixture
        self._usage: Counter[str] = Counter() if usage is None else usage
        self._prefixes: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()
        self._chooses = "logits_to_keep" in signature(model.forward).parameters

    @property
    def tokens(self) -> int:
        """How many tokens of prompts were read so far, padding left out."""
        return self._usage[READ]

    @tokens.setter
    def tokens(self, number: int) -> None:
        self._usage[READ] = number

    @property
    def can_share(self) -> bool:
        """Whether tree masks and kept prefixes mean to the model what they say: full attention, given positions."""
        config = self.model.config.get_text_config()
        kinds = getattr(config, "layer_types", None)
        full = set(kinds) == {"full_attention"} if kinds else getattr(config, "sliding_window", None) is None
        return full and "position_ids" in signature(self.model.forward).parameters

    def plain(self, ids: torch.Tensor) -> torch.Tensor:
        """Return tokens as the vocabulary has them."""
        return self.media.plain(ids) if self.media else ids

    def prefix(self, head: Sequence[int]) -> Prefix:
        """Return the keys and values of a constant head, read on first use and kept for the latest few heads."""
        key = tuple(head)
        if key not in self._prefixes:
            self._prefixes[key] = self.extended(Prefix(), head)
            if len(self._prefixes) > _KEPT:
                self._prefixes.popitem(last=False)
        self._prefixes.move_to_end(key)
        return self._prefixes[key]

    def extended(self, prefix: Prefix, tokens: Sequence[int]) -> Prefix:
        """Return `prefix` with `tokens` after it."""
        if not tokens:
            return prefix
        length = prefix.length + len(tokens)
        self.tokens += len(tokens)
        cache = prefix.cache(1)
        self.logits(
            torch.tensor([list(tokens)]),
            mask=torch.ones(1, length, dtype=torch.int64),
            positions=torch.arange(prefix.length, length)[None],
            cache=cache,
            keep=1,
        )
        return Prefix(length, tuple((layer.keys, layer.values) for layer in cache.layers))

    def logits(
        self,
        ids: torch.Tensor,
        *,
        mask: torch.Tensor,
        positions: torch.Tensor,
        cache: DynamicCache | None,
        keep: int | torch.Tensor,
        of: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Return the float32 logits of the last `keep` columns, or of those that it names, (rows, kept, vocabulary).

        `ids` and `positions` are (rows, columns). `mask` says what may be seen: integers (rows, cached + columns)
        under a causal model's own order, or booleans (rows, 1, columns, cached + columns) for each column.
        The tokens are added to `cache` if there is one. `of` numbers the request of each row, for adapters whose
        weights differ by request.
        """
        device, dtype = self.model.device, self.model.dtype
        mask = mask.to(device)
        if mask.dim() == 4:  # noqa: PLR2004  (made additive once here, not in each layer)
            mask = torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill_(~mask, torch.finfo(dtype).min)
        ids = ids.to(device)
        vectors = self.media.embedded(ids) if self.media else None
        with self.mixture.added(of) if self.mixture else nullcontext():
            output = self.model(
                **({"input_ids": ids} if vectors is None else {"inputs_embeds": vectors}),
                attention_mask=mask,
                position_ids=positions.to(device),
                past_key_values=cache,
                use_cache=cache is not None,
                **({"logits_to_keep": keep} if self._chooses else {}),
            )
        logits: torch.Tensor = output.logits
        if not self._chooses:
            logits = logits[:, -keep:] if isinstance(keep, int) else logits[:, keep]
        return logits.float()


def padded(sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids padded on the left, the mask of real tokens (1) and their positions, int64 (sequences, longest)."""
    width = max(map(len, sequences))
    ids = torch.zeros(len(sequences), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, sequence in enumerate(sequences):
        ids[i, width - len(sequence) :] = torch.tensor(sequence, dtype=torch.int64)
        mask[i, width - len(sequence) :] = 1
    return ids, mask, (mask.cumsum(1) - 1).clamp_(min=0)
