"""Values as JSON that every program reads."""

from __future__ import annotations

import json
import math
from typing import Any


def json_text(value: Any) -> str:
    """Return a value as JSON on one line: null for NaN and infinities, text for whatever else JSON lacks."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, default=_plain)
    return text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate, such as of a file name, as its escape


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    return _finite(value.model_dump()) if hasattr(value, "model_dump") else str(value)
