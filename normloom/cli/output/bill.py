"""Upper bounds of a build's model usage, as lines and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from normloom.core.rows.text import counted
from normloom.planning.costs.spending import Bill


def bill_lines(bills: Sequence[Bill]) -> list[str]:
    """Return a line for each model, and one for all of them if several are hosted."""
    lines = [f"At most {_line(bill)} ({bill.model})." for bill in _by_model(bills)]
    paid = [bill for bill in _by_model(bills) if bill.hosted]
    if len(paid) > 1:
        lines.append(f"At most {_line(_sum(paid))} in all at hosted models.")
    if unpriced := [bill.model for bill in paid if not bill.cost and bill.requests]:
        lines.append(f"No price is set for {', '.join(unpriced)}: options price_in and price_out, per million tokens.")
    return lines


def bill_as_json(bills: Sequence[Bill]) -> dict[str, Any]:
    """Return the bounds by model and for all hosted models."""
    paid = _sum([bill for bill in bills if bill.hosted])
    return {
        "at_most": {
            "models": [{**_numbers(bill), "model": bill.model, "hosted": bill.hosted} for bill in _by_model(bills)],
            "hosted": _numbers(paid),
        }
    }


def _numbers(bill: Bill) -> dict[str, Any]:
    return {
        "requests": bill.requests,
        "tokens_in": bill.tokens_in,
        "tokens_out": bill.tokens_out,
        "cost": None if bill.hosted and bill.requests and not bill.cost else round(bill.cost, 6),  # None: no price
        "currency": bill.currency,
    }


def _line(bill: Bill) -> str:
    cost = f", {bill.cost:,.2f} {bill.currency}" if bill.cost else ""
    return f"{counted(bill.requests, 'request')}, {bill.tokens_in:,} tokens in and {bill.tokens_out:,} out{cost}"


def _by_model(bills: Sequence[Bill]) -> list[Bill]:
    names = dict.fromkeys((bill.model, bill.hosted) for bill in bills)
    return [_sum([bill for bill in bills if (bill.model, bill.hosted) == name]) for name in names]


def _sum(bills: Sequence[Bill]) -> Bill:
    first = bills[0] if bills else None
    return Bill(
        model=first.model if first else "",
        stage="",
        hosted=first.hosted if first else True,
        requests=sum(bill.requests for bill in bills),
        tokens_in=sum(bill.tokens_in for bill in bills),
        tokens_out=sum(bill.tokens_out for bill in bills),
        cost=sum(bill.cost for bill in bills),
        currency=next((bill.currency for bill in bills if bill.cost), "USD"),
    )
