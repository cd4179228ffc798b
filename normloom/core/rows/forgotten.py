"""Rows that people took back: identified by id and by hashes of their texts, and dropped from every source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import polars as pl

from normloom.core.rows.text import normalise
from normloom.core.stage import Output, dropped_frame

FORGOTTEN = "forgotten"  # the reason in the ledger of dropped rows
MIN_CHARS = 8  # of a text that tells a row from others; shorter ones are labels too


@dataclass(frozen=True)
class DenyList:
    """Ids of source rows and hashes of texts that no source may contain, each with the reason."""

    rows: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """What the list is, for keys: the same for the same ids and hashes; nothing for an empty list."""
        if not self.rows and not self.texts:
            return ""
        return hashlib.sha256(json.dumps([sorted(self.rows), sorted(self.texts)]).encode()).hexdigest()[:20]

    def why(self, row: Mapping[str, Any]) -> str | None:
        """Return why a row was taken back, None if it was not."""
        if (why := self.rows.get(row.get("row_id") or "")) is not None:
            return why
        return self.why_text(value for name, value in row.items() if name not in {"row_id", "parents"})

    def why_text(self, value: Any) -> str | None:
        """Return why a text in a value was taken back, None if none was."""
        if not self.texts:
            return None
        found = (self.texts.get(text_hash(text)) for text in strings(value))
        return next((why for why in found if why is not None), None)


def text_hash(text: str) -> str:
    """Return the SHA-256 of a text (hex), regardless of case, white space and Unicode form."""
    return hashlib.sha256(normalise(text).encode()).hexdigest()


def strings(value: Any) -> Iterator[str]:
    """Yield all texts in a value, at any depth; of one that is JSON, those in it too."""
    if isinstance(value, str):
        yield value
        if value[:1] in {"{", "["}:
            try:
                inner = json.loads(value)
            except ValueError:
                return
            if not isinstance(inner, str):
                yield from strings(inner)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, Iterator | list | tuple):
        for item in value:
            yield from strings(item)


def without_forgotten(output: Output, deny: DenyList) -> Output:
    """Return a source's output with forgotten rows moved to the dropped ones, without their texts.

    Ledger entries that quote them are treated likewise.
    """
    if not deny.digest:
        return output
    entries: list[dict[str, str | None]] = []

    def kept(frame: pl.DataFrame) -> pl.DataFrame:
        found = [deny.why(row) for row in frame.iter_rows(named=True)]
        for row_id, why in zip(frame["row_id"], found, strict=True):
            if why is not None:
                payload = json.dumps({"reason": why}, ensure_ascii=False)
                entries.append({"row_id": row_id, "reason": FORGOTTEN, "winner": None, "payload": payload})
        return frame.filter(pl.Series([why is None for why in found], dtype=pl.Boolean))

    rows, dropped, quarantined = kept(output.rows), kept(output.dropped), kept(output.quarantined)
    if not entries:
        return output
    return replace(output, rows=rows, dropped=pl.concat([dropped, dropped_frame(entries)]), quarantined=quarantined)
