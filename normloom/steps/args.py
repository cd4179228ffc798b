"""The arguments of a step, which are its section of the settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Args(BaseModel):
    """Base of a step's arguments: frozen, unknown names refused, defaults validated.

    Every field enters the stage key by value, except those declared with `exclude=True`. The field `part_rows`, if
    a step has one, must be such a field: it says how the work is cut and only the runner reads it.

    A section of the settings that several steps share inherits from the arguments of each of them; a step is given the
    fields that are its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
