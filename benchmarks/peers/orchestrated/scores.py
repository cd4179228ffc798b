"""The helper that the judge calls."""

from __future__ import annotations

import hashlib


def score(text: str) -> float:
    """Return a score in [0, 1) that the text alone decides."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
