"""The arguments of a step, which are its section of the settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Args(BaseModel):
    """Base of a step's arguments: frozen, rejects unknown names, validates defaults.

    Every field enters the stage key by value, except those declared with `exclude=True`. The field `part_rows`, if
    a step has one, must be excluded: it sets how the work is cut, and only the runner reads it.

    A section of the settings that several steps share inherits from the arguments of each of them; a step gets only
    its own fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
