"""The quarantine budget: how much of a stage may be put into quarantine, and what is said if it is more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from normloom.core.errors import QuarantineBudgetError
from normloom.core.rows.rules import CRASH, OUTAGE, TRANSIENT

REASON_CHARS = 300
_ADVICE = {
    OUTAGE: "rerun the command once the model answers",
    CRASH: "rerun the command when the machine has memory and disk to spare, or with fewer actors",
}
_MADE_AGAIN = "only the parts with these rows are rebuilt"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The largest shares of a stage's attempts that may be in quarantine.

    `share` holds for all rules together and `transient` for those that blame the world: a stage that forgives rows
    that a model cannot take does not forgive an outage. `own` says that the stage sets `share`, and no setting does.
    """

    stage: str
    share: float
    transient: float
    own: bool = False

    def holds(self, counts: Mapping[str, int], attempts: int) -> bool:
        """Return whether rows by rule are within the budget.

        A single row never is too much, unless it is all there is and an outage took it.
        """
        total, transient = sum(counts.values()), _transient(counts)
        spared = 0 if transient == attempts else 1
        return total <= max(self.share * attempts, 1) and transient <= max(self.transient * attempts, spared)

    def require(self, counts: Mapping[str, int], attempts: int, ledger: Callable[[], pl.DataFrame]) -> None:
        """Raise QuarantineBudgetError if the rows in quarantine are more than the budget.

        `ledger` gives their entries: columns `row_id`, `rule` and `reason`.
        """
        if self.holds(counts, attempts):
            return
        total = sum(counts.values())
        by_rule = ", ".join(f"{rule} {count:,}" for rule, count in sorted(counts.items(), key=lambda item: -item[1]))
        lasting = {rule: count for rule, count in counts.items() if rule not in TRANSIENT}
        blamed = {rule: count for rule, count in counts.items() if rule in TRANSIENT}
        passing = bool(blamed) and self.holds(lasting, attempts)
        share = min(self.share, self.transient) if passing else self.share
        raise QuarantineBudgetError(
            f"stage {self.stage!r} put {total:,} of {attempts:,} rows into quarantine ({by_rule}), more than its "
            f"budget of {share:.0%}: {_commonest(ledger())}; {self._advice(blamed if passing else {})}"
        )

    def _advice(self, blamed: Mapping[str, int]) -> str:
        if blamed:
            return f"{_ADVICE[max(blamed, key=lambda rule: blamed[rule])]}: {_MADE_AGAIN}"
        return "fix the input" if self.own else "fix the input, or raise quarantine_budget"


def _transient(counts: Mapping[str, int]) -> int:
    return sum(count for rule, count in counts.items() if rule in TRANSIENT)


def by_reason(ledger: pl.DataFrame) -> pl.DataFrame:
    """Return one entry for each reason, numbers in it aside, with its count `len`, the commonest first."""
    reason = pl.col("reason").str.replace_all(r"\s+", " ").str.strip_chars()
    kinds = ledger.with_columns(reason).with_columns(kind=pl.col("reason").str.replace_all(r"\d+", "0"))
    common = kinds.group_by("kind", maintain_order=True).agg(pl.len(), pl.all().first())
    return common.sort("len", descending=True, maintain_order=True)


def _commonest(ledger: pl.DataFrame) -> str:
    """Return the reason that most entries have, with the row of one of them."""
    common = by_reason(ledger)
    first = common.row(0, named=True)
    text: str = first["reason"]
    text = text if len(text) <= REASON_CHARS else f"{text[:REASON_CHARS]}…"
    row = f" (row {first['row_id']})" if first["row_id"] else ""
    return f"{'mostly ' if common.height > 1 else ''}'{text}'{row}"
