"""The upper bounds of a plan: what each stage makes and asks at most, and what that costs at each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from normloom.core.bounds import Bound, Size, size_of, total
from normloom.core.stage import Output, Stage
from normloom.planning.costs.spending import Bill, hosted
from normloom.planning.plan import PlannedStage
from normloom.store.store import Store


def bounds(planned: Sequence[PlannedStage], *, sources: Mapping[str, Output], store: Store) -> dict[str, Bound]:
    """Return a bound for each stage; those whose tables are there ask for nothing.

    `sources` are what the stages without inputs have read. A stage is left out if nothing bounds what it reads, or, for
    one that asks nothing, how many rows it makes.
    """
    found: dict[str, Bound] = {}
    for one in planned:
        stage = one.stage
        if one.table and not one.to_do:
            found[stage.name] = Bound(size=size_of(store.scan(one.table.ref)))
        elif not stage.upstream:
            if stage.name in sources:
                found[stage.name] = Bound(size=size_of(sources[stage.name].rows.lazy()))
        elif all(upstream.name in found for upstream in (*stage.inputs, *stage.sides)):  # a product asks for nothing
            inputs = [found[upstream.name].size for upstream in stage.inputs]
            sides = [found[upstream.name].size for upstream in stage.sides]
            if bound := _bound(stage, inputs, sides):
                found[stage.name] = _without_done(bound, one)
    return found


def unbounded(planned: Sequence[PlannedStage], found: Mapping[str, Bound]) -> str | None:
    """Return a sentence naming the stages whose requests to hosted models cannot be bounded now; None if all can."""
    names = [
        one.stage.name
        for one in planned
        if one.to_do
        and one.stage.model
        and hosted(one.stage.model)
        and not ((bound := found.get(one.stage.name)) and bound.known)
    ]
    if not names:
        return None
    return (
        f"Requests of {', '.join(names)} cannot be bounded before their input exists; --max-requests and --max-cost "
        "stop the build when a limit is reached."
    )


def bills(planned: Sequence[PlannedStage], found: Mapping[str, Bound]) -> list[Bill]:
    """Return what each stage with a model asks of it at most; a stage without a bound is left out."""
    return [
        Bill.of(one.stage.model, bound, stage=one.stage.name)
        for one in planned
        if one.to_do and one.stage.model and (bound := found.get(one.stage.name)) and bound.known
    ]


def _bound(stage: Stage, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound | None:
    if stage.bound:
        return stage.bound(stage, inputs, sides)
    made = stage.fan_out.rows if stage.fan_out else 1
    return Bound(size=total(inputs).times(made), known=False) if isinstance(made, int) else None


def _without_done(bound: Bound, one: PlannedStage) -> Bound:
    """Return the bound of what is left when some parts are done: what they took is within their share of it."""
    requests = sum(part.usage.get("requests", 0) - part.usage.get("retries", 0) for part in one.done)
    return replace(
        bound,
        requests=max(bound.requests - int(requests), 0),
        tokens_in=max(bound.tokens_in - sum(part.tokens_in for part in one.done), 0),
        tokens_out=max(bound.tokens_out - sum(part.tokens_out for part in one.done), 0),
    )
