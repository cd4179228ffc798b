"""What a build may ask of hosted models, and what it has asked so far."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from normloom.core.bounds import Bound
from normloom.core.errors import SpendingError, UsageError
from normloom.core.models.protocol import ModelSpec
from normloom.core.rows.text import exact
from normloom.core.table import PartRecord
from normloom.models.openai.options import Options
from normloom.models.registry import engine_of, parse_options

DEAREST = 3  # stages that a message names


def prices(spec: ModelSpec) -> tuple[float, float]:
    """Return what a model costs for a million tokens read, and written."""
    return float(spec.options.get("price_in", 0)), float(spec.options.get("price_out", 0))


def hosted(spec: ModelSpec) -> bool:
    """Return whether requests to a model may cost money."""
    return engine_of(spec).remote or any(prices(spec))


def unpriced(specs: Iterable[ModelSpec]) -> str | None:
    """Return a sentence on hosted models without a price, which no limit of cost stops; None if all have one.

    A server that asks for no key is taken to cost nothing.
    """
    names = {
        spec.model: None
        for spec in specs
        if engine_of(spec).remote and not any(prices(spec)) and parse_options(Options, spec).key_variable
    }
    if not names:
        return None
    return (
        f"No price is set for {', '.join(names)} (options price_in and price_out, per million tokens): what it costs "
        "is unknown, and --max-cost does not limit it; --max-requests does."
    )


def batched(spec: ModelSpec) -> bool:
    """Return whether requests to a model are sent as batches, whose answers a later build collects."""
    return engine_of(spec).remote and parse_options(Options, spec).batch


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What is asked of one model at most: requests, tokens read and written, and their cost."""

    model: str
    stage: str
    hosted: bool
    requests: int
    tokens_in: int
    tokens_out: int
    cost: float
    currency: str = "USD"

    @classmethod
    def of(cls, spec: ModelSpec, bound: Bound, *, stage: str) -> Bill:
        """Return the bill of one stage."""
        price_in, price_out = prices(spec)
        requests, tokens_in, tokens_out = bound.requests, bound.tokens_in, bound.tokens_out
        if bound.questions:
            draws, tokens = _answers(spec)
            requests, tokens_in = requests * draws, tokens_in * draws
            tokens_out = requests * tokens
        return cls(
            model=spec.model,
            stage=stage,
            hosted=hosted(spec),
            requests=requests,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            cost=(tokens_in * price_in + tokens_out * price_out) / 1e6,
            currency=str(spec.options.get("currency", "USD")),
        )


@dataclass(frozen=True, kw_only=True)
class SpendingLimits:
    """The most requests to hosted models, and the most that they may cost; None: without limit."""

    max_requests: int | None = None
    max_cost: float | None = None

    def hold(self, bills: Iterable[Bill]) -> None:
        """Raise UsageError for a build that could take more, naming what makes it so."""
        bills = [bill for bill in bills if bill.hosted]
        currencies = {bill.currency for bill in bills if bill.cost}
        if len(currencies) > 1:
            raise UsageError(f"models have prices in {' and '.join(sorted(currencies))}: give one currency")
        requests, cost = sum(bill.requests for bill in bills), sum(bill.cost for bill in bills)
        if self.max_requests is not None and requests > self.max_requests:
            most = _dearest({bill.stage: bill.requests for bill in bills})
            raise UsageError(
                f"this build may send up to {requests:,} requests to hosted models, more than --max-requests "
                f"{self.max_requests:,} ({most}): ask for less, or allow it with --max-requests {requests}"
            )
        if self.max_cost is not None and cost > self.max_cost:
            most = _dearest({bill.stage: bill.cost for bill in bills})
            raise UsageError(
                f"this build may cost up to {cost:,.2f} {currencies.pop()}, more than --max-cost "
                f"{exact(self.max_cost)} ({most}): ask for less, or allow it with --max-cost {_up(cost)}"
            )


@dataclass
class Spending:
    """Counts what the parts of a build took, for any thread. Parts under way when a limit is reached are finished."""

    limits: SpendingLimits = field(default_factory=SpendingLimits)
    requests: float = 0.0
    cost: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    _counting: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, part: PartRecord) -> None:
        """Count a part that was made."""
        usage: Mapping[str, float] = part.usage
        with self._counting:
            self.requests += usage.get("requests", 0.0)
            self.cost += usage.get("cost", 0.0)
            self.tokens_in += part.tokens_in
            self.tokens_out += part.tokens_out

    @property
    def reached(self) -> bool:
        """Whether no further part may be begun."""
        limits = self.limits
        return (limits.max_requests is not None and self.requests >= limits.max_requests) or (
            limits.max_cost is not None and self.cost >= limits.max_cost > 0
        )

    def stopped(self, stage: str) -> SpendingError:
        """Return the error of a stage that ended because a limit is `reached`."""
        limits = self.limits
        if limits.max_requests is not None and self.requests >= limits.max_requests:
            option = f"--max-requests {limits.max_requests:,}"
        else:
            option = f"--max-cost {exact(limits.max_cost or 0)}"
        return SpendingError(
            f"stage {stage!r} stopped: {self.requests:,.0f} requests were sent to hosted models, at a cost of "
            f"{self.cost:,.4f}, and {option} is reached; finished parts are kept: rerun with a higher "
            f"{option.partition(' ')[0]} to resume"
        )


def _answers(spec: ModelSpec) -> tuple[int, int]:
    """Return how many answers are drawn to a question, and the tokens of one: none if the model does not write."""
    if not engine_of(spec).remote:
        return 1, 0
    options = parse_options(Options, spec)
    return max(options.drawn, 1), 1 if options.scores == "logprobs" else options.answer_tokens


def _dearest(shares: Mapping[str, float]) -> str:
    most = sorted(shares.items(), key=lambda pair: -pair[1])[:DEAREST]
    return "most of it: " + ", ".join(f"{stage} {share:,.10g}" for stage, share in most if share)


def _up(cost: float) -> str:
    return exact(int(cost * 100 + 1) / 100)
