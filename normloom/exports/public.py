"""What of a build may be published: no user, password or query of a URL, and no folders of this machine."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml

from normloom.history.builds import BuildLock
from normloom.readers.remote.fetch import shown
from normloom.settings.systems import system_names

_END = r"[^\s'\",}\]]+"
_PLACE = re.compile(rf"(?P<url>\w[\w+.-]*://{_END})|(?P<path>(?<![\w.])(?:~|\.{{1,2}})?/{_END})")


def public(text: str) -> str:
    """Return a text whose URLs have no secrets and whose paths are only their last part."""
    return _PLACE.sub(lambda found: shown(found["url"]) if found["url"] else Path(found["path"]).name, text)


def public_name(source: str) -> str:
    """Return the name of a source: a URL without secrets, or the last part of a path."""
    return shown(source) if "://" in source else Path(source).name


def public_lock(lock: BuildLock) -> str:
    """Return the lock of a build as YAML."""
    plain = _public(lock.model_dump(mode="json", exclude_none=True))
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
