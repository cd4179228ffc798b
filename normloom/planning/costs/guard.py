"""A guard for unattended builds: what only an upgrade would rebuild waits until someone allows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from normloom.core.errors import UsageError
from normloom.core.rows.text import counted

if TYPE_CHECKING:
    from normloom.planning.changes import Change
    from normloom.planning.plan import Plan, PlannedStage

# Fields of a key that people change by what they ask for; all others come with code, libraries and model files.
ASKED = ("arguments", "inputs", "sides", "part_rows", "remake", "model.model", "model.options", "model.revision")
NAMED = 5  # stages in a message


@dataclass(frozen=True, kw_only=True)
class RemakeLimits:
    """The most stages, and tokens that making them took, to make again unasked; None: without limit."""

    stages: int | None = None
    tokens: int | None = None

    def hold(self, plan: Plan) -> None:
        """Raise UsageError if a build would make more again than the limits allow."""
        if self.stages is None and self.tokens is None:
            return
        found = unasked(plan)
        tokens = sum(one.newest.tokens_in + one.newest.tokens_out for one, _ in found if one.newest)
        over = [
            f"{name} ({most:,})"
            for name, count, most in (
                ("remake.max_stages", len(found), self.stages),
                ("remake.max_tokens", tokens, self.tokens),
            )
            if most is not None and count > most
        ]
        if not over:
            return
        named = [f"{one.stage.name} ({_why(one, changes)})" for one, changes in found]
        more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        raise UsageError(
            f"the build would rebuild {counted(len(found), 'stage')} that no setting or input changed, which took "
            f"{tokens:,} tokens: {', '.join(named[:NAMED])}{more}. That exceeds {' and '.join(over)}. Inspect them "
            f"with normloom plan {plan.system}; to allow it, run the build once with --set remake.max_stages=null "
            "--set remake.max_tokens=null"
        )


def unasked(plan: Plan) -> list[tuple[PlannedStage, Sequence[Change]]]:
    """Return the stages that have a table and are to be made again for a reason that no setting or input gives.

    Each comes with the fields of its own key that say so; without any it reads the table of one that does.
    """
    found: dict[str, tuple[PlannedStage, Sequence[Change]]] = {}
    for planned in plan.stages:
        if not planned.to_do or planned.state == "again" or not (planned.newest or planned.damage):
            continue
        own = _unasked(planned.changes)
        if own or planned.damage or any(upstream.name in found for upstream in planned.stage.upstream):
            found[planned.stage.name] = planned, own
    return list(found.values())


def _why(planned: PlannedStage, changes: Sequence[Change]) -> str:
    from normloom.planning.changes import summarise

    return summarise(changes) if changes else "cannot be read" if planned.damage else "reads one of them"


def _unasked(changes: Sequence[Change]) -> list[Change]:
    def asked(change: Change) -> bool:
        return any(change.field == name or change.field.startswith((f"{name}.", f"{name}[")) for name in ASKED)

    if any(asked(change) for change in changes if change.field.startswith("model")):  # another model, and all it has
        changes = [change for change in changes if not change.field.startswith("model")]
    return [change for change in changes if not asked(change)]
