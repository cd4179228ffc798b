"""What of a build's record others may see: no user, password or query of a URL, and no folders of this machine."""

from __future__ import annotations

import re
from pathlib import Path

from normloom.readers.remote.fetch import shown

_END = r"[^\s'\",}\]]+"
_PLACE = re.compile(rf"(?P<url>\w[\w+.-]*://{_END})|(?P<path>(?<![\w.])(?:~|\.{{1,2}})?/{_END})")


def without_secrets(text: str) -> str:
    """Return a text whose URLs have no user, password and query."""
    return _PLACE.sub(lambda found: shown(found["url"]) if found["url"] else found[0], text)


def public(text: str) -> str:
    """Return a text whose URLs have no secrets and whose paths are only their last part."""
    return _PLACE.sub(lambda found: shown(found["url"]) if found["url"] else Path(found["path"]).name, text)


def public_name(source: str) -> str:
    """Return the name of a source: a URL without secrets, or the last part of a path."""
    return shown(source) if "://" in source else Path(source).name
