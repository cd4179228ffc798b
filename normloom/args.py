"""The arguments of a step, which are its section of the settings."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Args(BaseModel):
    """Base of a step's arguments: frozen, unknown names refused, defaults validated.

    Every field enters the stage key by value, except those declared with `exclude=True`. The field `part_rows`, if
    a step has one, must be such a field: it says how the work is cut and is read by the runner alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def but(self, **changes: Any) -> Self:
        """Return the arguments with some fields changed and validated; raises ValidationError."""
        return type(self).model_validate({**dict(self), **changes})

    @classmethod
    def of(cls, section: BaseModel) -> Self:
        """Return the fields of a settings section that are arguments of this kind.

        A section that several steps share inherits from the arguments of each of them; a step's key then holds only
        the fields that are its own.
        """
        if type(section) is cls:
            return section
        return cls.model_construct(**{name: getattr(section, name) for name in cls.model_fields})
