"""The gate before a table is released: a release that is too small never takes the place of the one before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from normloom.core.errors import ReleaseError
from normloom.core.rows.text import counted
from normloom.core.table import Manifest
from normloom.store.store import Store


class ReleaseGate(Protocol):
    """What a table that is made must be before it is the newest release."""

    def hold(self, store: Store, table: Manifest) -> None:
        """Raise ReleaseError for a table that is not to be released."""


@dataclass(frozen=True, kw_only=True)
class ReleaseSize:
    """The least rows of a released table, and the least share of the rows of the one before it (None: any).

    `settable`: these are settings of the build, which a message may advise to change.
    """

    min_rows: int = 1
    min_share_of_last: float | None = None
    settable: bool = False

    def hold(self, rows: int, *, stage: str, last: Manifest | None, why: str) -> None:
        """Raise ReleaseError for a table of so few rows; `why` says where rows went."""
        before = last.count("rows") if last else 0
        kept = f"the release before it ({counted(before)}) stays the newest" if last else "nothing is released"
        if rows < self.min_rows:
            raise ReleaseError(
                f"{stage!r} would release {counted(rows)}, fewer than release.min_rows = {self.min_rows}; {kept}. "
                f"Why rows were left out: {why}{self._advice(f'min_rows={rows}')}"
            )
        if self.min_share_of_last is not None and rows < self.min_share_of_last * before:
            raise ReleaseError(
                f"{stage!r} would release {counted(rows)} after {before:,}, less than the share "
                f"release.min_share_of_last = {self.min_share_of_last:g}; {kept}. "
                f"Why rows were left out: {why}{self._advice('min_share_of_last=null')}"
            )

    def _advice(self, setting: str) -> str:
        return f". To release it as it is: --set release.{setting}" if self.settable else ""


def hold_gate(gate: ReleaseGate | None, table: Manifest | None, store: Store) -> None:
    """Raise ReleaseError for a table that does not pass the gate, if there are both."""
    if gate and table:
        gate.hold(store, table)
