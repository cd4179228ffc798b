"""The settings of a system as a list: name, value, default, what is allowed, what each means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from normloom.core.models.protocol import ModelSpec
from normloom.schemas.template import Template

_BOUNDS = {
    annotated_types.Ge: "at least",
    annotated_types.Gt: "over",
    annotated_types.Le: "at most",
    annotated_types.Lt: "under",
}
_REQUIRED = object()


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting; `value` and `default` as they are written in YAML, `default` None if the setting is required."""

    name: str
    value: str
    default: str | None
    allowed: str
    description: str

    @property
    def section(self) -> str:
        """The first part of a dotted name; empty for a setting in no section."""
        return self.name.rpartition(".")[0].partition(".")[0]

    @property
    def changed(self) -> bool:
        """Whether the value is not the default."""
        return self.value != self.default

    def as_json(self) -> dict[str, Any]:
        """Return the setting as a JSON object."""
        return asdict(self)


def settings_of(config: BaseModel, *, prefix: str = "") -> list[Setting]:
    """Return the settings of a config, plain ones first, then section by section."""
    found = list(_settings(config, None, prefix))
    return sorted(found, key=lambda setting: setting.section != "")


def _settings(config: BaseModel, defaults: object, prefix: str) -> Iterator[Setting]:
    """Yield the settings of a section; `defaults` is the section as it is by default, if the whole of it has one."""
    for name, field in type(config).model_fields.items():
        value, default = getattr(config, name), getattr(defaults, name, _default(field))
        if isinstance(value, BaseModel) and not isinstance(value, ModelSpec | Template):
            yield from _settings(value, default, f"{prefix}{name}.")
        elif isinstance(value, Mapping) and value and all(isinstance(one, ModelSpec) for one in value.values()):
            for key, spec in value.items():
                yield _setting(f"{prefix}{name}.{key}", field, spec, _REQUIRED)
        else:
            yield _setting(f"{prefix}{name}", field, value, default)


def _default(field: FieldInfo) -> object:
    if field.is_required():
        return _REQUIRED
    return field.default_factory() if field.default_factory else field.default  # type: ignore[call-arg]  # none here reads other fields


def _setting(name: str, field: FieldInfo, value: object, default: object) -> Setting:
    return Setting(
        name=name,
        value=_written(value),
        default=None if default is _REQUIRED else _written(default),
        allowed=_allowed(field),
        description=field.description or "",
    )


def _written(value: object) -> str:
    """Return a value in one line of YAML; a model without what it leaves at its defaults."""
    if isinstance(value, ModelSpec):
        return f"{value.model} ({value.engine})"
    if isinstance(value, Template):
        return value.name
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, Path):
        value = str(value)
    text: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _allowed(field: FieldInfo) -> str:
    """Return the values or bounds that a field allows, empty if any value of its type will do."""
    choices = [str(choice) for kind in _members(field.annotation) for choice in _literals(kind)]
    if choices:
        return " | ".join([*choices, *(["null"] if NoneType in _members(field.annotation) else [])])
    bounds = [
        f"{word} {getattr(one, kind.__name__.lower())}"
        for one in field.metadata
        for kind, word in _BOUNDS.items()
        if isinstance(one, kind)
    ]
    return ", ".join(bounds)


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)


def _literals(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()
