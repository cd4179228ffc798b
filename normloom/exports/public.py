"""The lock and the command of a build, as they may be published."""

from __future__ import annotations

import shlex

import yaml

from normloom.history.builds import BuildLock
from normloom.history.public import public, public_name
from normloom.settings.systems import system_names


def public_lock(lock: BuildLock) -> str:
    """Return the lock of a build as YAML."""
    plain = _public(lock.model_dump(mode="json", exclude_none=True, exclude={"file"}))
    if isinstance(plain, dict) and lock.source.name:
        plain["source"]["name"] = public_name(lock.source.name)
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def command(lock: BuildLock) -> str:
    """Return the command that makes the same build, nothing for a flow that no command builds."""
    if lock.system not in system_names():
        return ""
    words = ["normloom", "build", lock.system, *(["--profile", public(lock.profile)] if lock.profile else [])]
    return shlex.join([*words, *(word for assignment in lock.settings for word in ("--set", public(assignment)))])


def _public(value: object) -> object:
    if isinstance(value, dict):
        return {name: _public(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_public(one) for one in value]
    return public(value) if isinstance(value, str) else value
