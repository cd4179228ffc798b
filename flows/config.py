"""The settings of a build: a profile, the system's own settings in it, and what the command line changes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from normloom.errors import ConfigError
from normloom.flows.environment import substituted
from normloom.resources import Resources

PROFILES = Path(__file__).parent.parent / "deployments" / "profiles"

Config = TypeVar("Config", bound=BaseModel)


class Settings(BaseModel):
    """Base of all settings: unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def section(kind: type[Config]) -> Any:
    """Return the field of a section whose settings all have defaults, made when a system's settings are."""
    return Field(default_factory=kind)


def profile_names() -> list[str]:
    """Return the names of the profiles there are."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_profile(profile: str, system: str) -> dict[str, Any]:
    """Return the settings of a system in a profile: a built-in one by name, or a YAML file by path."""
    path = Path(profile) if profile.endswith((".yaml", ".yml")) else PROFILES / f"{profile}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"there is no profile {profile!r}: use one of {', '.join(profile_names())}, or the path of a YAML file"
        ) from None
    except OSError as error:
        raise ConfigError(f"profile {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"profile {path} is not valid YAML: {' '.join(str(error).split())}") from error
    sections = _by_name(content, f"profile {path}")
    resources = sections.pop("resources", {})
    systems = _by_name(sections.pop("systems", {}), f"profile {path}, systems")
    if sections:
        unknown = ", ".join(map(repr, sections))
        raise ConfigError(f"profile {path}: unknown section {unknown}; it may have `resources` and `systems`")
    own = _by_name(systems.get(system, {}), f"profile {path}, systems.{system}")
    return substituted({"resources": {} if resources is None else resources, **own}, f"profile {path.stem}")


def _by_name(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict | None):
        raise ConfigError(f"{where}: expected settings by name, found {value!r}")
    return dict(value or {})


def override(settings: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return the settings with `dotted.name=value` assignments applied; values are YAML."""
    changed = _copied(settings)
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or not name.strip():
            raise ConfigError(f"--set {assignment!r}: expected name=value, such as classify.delta=0.4")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {name}: {text!r} is not a YAML value") from error
        *path, last = name.strip().split(".")
        inner = changed
        for step in path:
            inner = inner.setdefault(step, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {name}: {step!r} holds a value, not settings by name")
        inner[last] = value
    return changed


def validated(kind: type[Config], settings: Mapping[str, Any]) -> tuple[Config, Resources]:
    """Return the checked settings and resources; raises ConfigError naming each setting that is wrong."""
    own = dict(settings)
    resources = _checked(Resources, own.pop("resources", {}), prefix="resources.")
    return _checked(kind, own, prefix=""), resources


def _checked(kind: type[Config], settings: Mapping[str, Any], *, prefix: str) -> Config:
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        raise ConfigError("; ".join(_problem(kind, entry, prefix) for entry in error.errors())) from None


def _problem(kind: type[BaseModel], entry: Any, prefix: str) -> str:
    location = f"{prefix}{'.'.join(str(step) for step in entry['loc'])}".removesuffix(".")
    if entry["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(entry["loc"][-1]), _field_names(kind, entry["loc"][:-1]), n=3)
        hint = f", did you mean {' or '.join(close)}?" if close else ""
        return f"there is no setting {location}{hint}"
    if entry["type"] == "value_error":  # raised by a validator, whose words say it all
        return f"{location}: {entry['ctx']['error']}" if location else str(entry["ctx"]["error"])
    given = "" if entry["type"] == "missing" else f", not {entry['input']!r}"
    return f"setting {location}: {entry['msg'][0].lower()}{entry['msg'][1:]}{given}"


def _field_names(kind: Any, path: Sequence[Any]) -> list[str]:
    for step in path:
        field = getattr(kind, "model_fields", {}).get(step)
        kind = field.annotation if field else None
    return list(getattr(kind, "model_fields", {}))


def _copied(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copied(value) if isinstance(value, Mapping) else value for name, value in settings.items()}
