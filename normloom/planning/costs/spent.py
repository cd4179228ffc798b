"""What a build asked of models, as its lock records it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from normloom.core.models.protocol import ModelSpec
from normloom.core.rows.text import counted
from normloom.core.stage import Stage
from normloom.core.table import Manifest, Work
from normloom.planning.costs.spending import Spending, hosted, prices


class Spent(BaseModel):
    """Tokens that models read and wrote, requests to hosted models, and what these cost by the prices in the settings.

    `cost` is None if a hosted model has no price, or none was asked.
    """

    model_config = ConfigDict(frozen=True)
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = None
    currency: str | None = None

    @classmethod
    def of(cls, stages: Sequence[Stage], made: Mapping[str, tuple[Manifest, bool]]) -> Spent:
        """Return what the parts took that a build made; tables that it found cost nothing."""
        new = {name: manifest.work for name, (manifest, reused) in made.items() if not reused}
        works = [work for work in new.values() if work]
        paid = [
            (stage.model, work) for stage in stages if (work := new.get(stage.name)) and _is_paid(stage.model, work)
        ]
        known = bool(paid) and all(any(prices(spec)) for spec, _ in paid if spec)
        return cls(
            requests=int(sum(work.usage.get("requests", 0) for work in works)),
            tokens_in=sum(work.tokens_in for work in works),
            tokens_out=sum(work.tokens_out for work in works),
            cost=round(sum(work.usage.get("cost", 0.0) for _, work in paid), 6) if known else None,
            currency=next((str(spec.options.get("currency", "USD")) for spec, _ in paid if spec), None)
            if known
            else None,
        )

    @classmethod
    def so_far(cls, spending: Spending, stages: Sequence[Stage]) -> Spent:
        """Return what the parts took that a build has made until now; a cost only if a price made one."""
        currency = next(
            (
                str(stage.model.options.get("currency", "USD"))
                for stage in stages
                if stage.model and any(prices(stage.model))
            ),
            None,
        )
        return cls(
            requests=int(spending.requests),
            tokens_in=spending.tokens_in,
            tokens_out=spending.tokens_out,
            cost=round(spending.cost, 6) if currency else None,
            currency=currency,
        )

    def __str__(self) -> str:
        requests = f"{counted(self.requests, 'request')}, " if self.requests else ""
        cost = "" if self.cost is None else f", {self.cost:,.4f} {self.currency}"
        return f"{requests}{counted(self.tokens_in, 'token')} read, {self.tokens_out:,} written{cost}"


def _is_paid(spec: ModelSpec | None, work: Work) -> bool:
    return spec is not None and hosted(spec) and bool(work.tokens_in or work.tokens_out or work.usage.get("requests"))
