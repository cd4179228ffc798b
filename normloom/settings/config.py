"""The settings of a build: a profile, the system's own settings in it, and what the command line changes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from normloom.core.errors import ConfigError
from normloom.core.formats.yaml_text import load_yaml
from normloom.settings.environment import substituted
from normloom.workers.resources import Resources

PROFILES = Path(__file__).parent.parent / "deployments" / "profiles"

Config = TypeVar("Config", bound=BaseModel)

_EXPECTED = {  # by the type of Pydantic's error
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list, such as [a, b]"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type"), "names with values, such as {name: value}"),
    "string_type": "a text",
}


class Role(NamedTuple):
    """Where the settings of a system have a role's model, or `several` by name."""

    setting: tuple[str, ...]
    several: bool = False


class Settings(BaseModel):
    """Base of all settings: unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def section(kind: type[Config]) -> Any:
    """Return the field of a section whose settings all have defaults, made when a system's settings are."""
    return Field(default_factory=kind)


def profile_names() -> list[str]:
    """Return the names of the profiles there are."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_profile(profile: str, system: str, roles: Mapping[str, Role] | None = None) -> dict[str, Any]:
    """Return the settings of a system in a profile: a built-in one by name, or a YAML file by path.

    A profile names `models` once, and which of them plays which role (`roles`, those of one system under its own
    section); `roles` says which of them the system has (by default those of the system of this name).
    """
    path = Path(profile) if profile.endswith((".yaml", ".yml")) else PROFILES / f"{profile}.yaml"
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"unknown profile {profile!r}; available: {', '.join(profile_names())}, or the path of a YAML file"
        ) from None
    except OSError as error:
        raise ConfigError(f"profile {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"profile {path} is not valid YAML: {' '.join(str(error).split())}") from error
    sections = _by_name(content, f"profile {path}")
    resources = sections.pop("resources", {})
    systems = _by_name(sections.pop("systems", {}), f"profile {path}, systems")
    models = _by_name(sections.pop("models", {}), f"profile {path}, models")
    played = _by_name(sections.pop("roles", {}), f"profile {path}, roles")
    if sections:
        unknown = ", ".join(map(repr, sections))
        raise ConfigError(f"profile {path}: unknown section {unknown}; available: models, roles, resources, systems")
    own = _by_name(systems.get(system, {}), f"profile {path}, systems.{system}")
    played |= _by_name(own.pop("roles", {}), f"profile {path}, systems.{system}.roles")
    cast = _cast(models, played, _roles_of(system) if roles is None else roles, f"profile {path}")
    settings = {"resources": {} if resources is None else resources, **_merged(cast, own)}
    return substituted(settings, f"profile {path.stem}")


def _cast(
    models: Mapping[str, Any], played: Mapping[str, Any], roles: Mapping[str, Role], where: str
) -> dict[str, Any]:
    """Return the settings that give each role of a system its models."""
    settings: dict[str, Any] = {}
    for name, role in roles.items():
        if name not in played:
            continue
        given = played[name]
        names = [given] if isinstance(given, str) else list(given)
        if unknown := [one for one in names if one not in models]:
            raise ConfigError(f"{where}: role {name}: unknown model {unknown[0]!r}; available: {', '.join(models)}")
        if not role.several and len(names) != 1:
            raise ConfigError(f"{where}: role {name} takes one model, not {len(names)}")
        value = {one: models[one] for one in names} if role.several else models[names[0]]
        inner = settings
        for step in role.setting[:-1]:
            inner = inner.setdefault(step, {})
        inner[role.setting[-1]] = value
    return settings


def _roles_of(system: str) -> Mapping[str, Role]:
    from normloom.settings.systems import system_named, system_names

    return system_named(system).config.roles() if system in system_names() else {}


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with others over them: those of a section one by one, a model as a whole."""
    both = {**under, **over}
    for name in under.keys() & over.keys():
        if isinstance(under[name], Mapping) and isinstance(over[name], Mapping) and "model" not in over[name]:
            both[name] = _merged(under[name], over[name])
    return both


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
            value = load_yaml(text)
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
    resources = checked(Resources, own.pop("resources", {}), prefix="resources.")
    return checked(kind, own, prefix=""), resources


def checked(kind: type[Config], settings: Mapping[str, Any], *, prefix: str) -> Config:
    """Return a section's checked settings; raises ConfigError naming each setting that is wrong."""
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        raise ConfigError("; ".join(_problem(kind, entry, prefix) for entry in _causes(error))) from None


def _causes(error: ValidationError) -> list[Any]:
    """Return the problems, without that a list is too short only because its items are wrong."""
    found = error.errors()
    inner = {entry["loc"][:-1] for entry in found}
    return [entry for entry in found if entry["type"] != "too_short" or entry["loc"] not in inner]


def _problem(kind: type[BaseModel], entry: Any, prefix: str) -> str:
    location = f"{prefix}{'.'.join(str(step) for step in entry['loc'])}".removesuffix(".")
    if entry["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(entry["loc"][-1]), _field_names(kind, entry["loc"][:-1]), n=3)
        hint = f", did you mean {' or '.join(close)}?" if close else ""
        return f"unknown setting {location}{hint}"
    if entry["type"] == "value_error":  # raised by a validator, whose words say it all
        return f"{location}: {entry['ctx']['error']}" if location else str(entry["ctx"]["error"])
    if entry["type"] == "missing":
        return f"setting {location} is missing: the profile or --set must give it"
    if expected := _EXPECTED.get(entry["type"]):
        return f"setting {location}: expected {expected}, not {entry['input']!r}"
    if entry["type"] == "too_short":
        return f"setting {location}: expected at least {entry['ctx']['min_length']} of them, not {entry['input']!r}"
    return f"setting {location}: {entry['msg'][0].lower()}{entry['msg'][1:]}, not {entry['input']!r}"


def _field_names(kind: Any, path: Sequence[Any]) -> list[str]:
    for step in path:
        field = getattr(kind, "model_fields", {}).get(step)
        kind = field.annotation if field else None
    return list(getattr(kind, "model_fields", {}))


def _copied(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copied(value) if isinstance(value, Mapping) else value for name, value in settings.items()}
