"""Shared by the peers: the prompts, and the marginal rate that is compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, str]]:
    """Return the messages of each request, `system` and `user`."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def marginal(
    run: Callable[[Sequence[dict[str, str]]], tuple[float, int]], rows: list[dict[str, str]]
) -> dict[str, Any]:
    """Run on a quarter of the rows and on all; what the rest costs more is the rate without start and end.

    `run` returns seconds, engine start included, and the tokens written.
    """
    few = rows[: len(rows) // 4]
    short, short_tokens = run(few)
    whole, whole_tokens = run(rows)
    seconds = whole - short
    return {
        "rows": len(rows) - len(few),
        "seconds": seconds,
        "rows_per_second": (len(rows) - len(few)) / seconds,
        "tokens": whole_tokens - short_tokens,
        "start_s": short - seconds / 3,
    }
