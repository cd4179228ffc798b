"""What a check found in a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from normloom.core.contract import Check
from normloom.core.table import CheckResult

SAMPLE = 3  # values that a report shows


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a check found: rows that fail it with some of their values, or one figure of the table as JSON.

    `raised` is why it could not look; `failing` has the ids of the rows that fail if the check quarantines.
    """

    check: Check
    passed: bool
    rows: int = 0
    unexpected: int = 0
    sample: Sequence[Any] = ()
    observed: str | None = None
    raised: str | None = None
    failing: Sequence[str] = ()

    @property
    def result(self) -> CheckResult:
        """The result for the manifest."""
        return CheckResult(
            name=self.check.name, passed=self.passed, on_fail=self.check.on_fail, detail=self.raised or self._detail
        )

    @property
    def _detail(self) -> str:
        if self.observed is not None:
            return f"observed {self.observed}"
        sample = json.dumps(list(self.sample), default=str, ensure_ascii=False)
        return f"{self.unexpected} of {self.rows} rows" + (f", such as {sample}" if self.unexpected else "")
