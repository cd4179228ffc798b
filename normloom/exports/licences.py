"""Licences of sources and models: identifiers of the Hugging Face hub, and what a licence forbids."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

UNKNOWN, OTHER = "unknown", "other"

# The identifiers that a card's `license` may have, as of November 2026:
# https://huggingface.co/docs/hub/repositories-licenses
HUB_LICENCES = frozenset((Path(__file__).parent / "hub_licences.txt").read_text(encoding="utf-8").split())
_ALIASES = {"cc0": "cc0-1.0", "apache": "apache-2.0", "apache 2.0": "apache-2.0", "odc-by-1.0": "odc-by"}
_NON_COMMERCIAL = re.compile(r"\bnc\b|non-?commercial|research[- ](use[- ])?only|h-research|intel-research")
_NO_DERIVATIVES = re.compile(r"\bnd\b|no[- ]?derivatives")
_SHARE_ALIKE = re.compile(r"\bsa\b|share-?alike|\b(a|l)?gpl\b|\bodbl\b")


def identifier(licence: str | None) -> str:
    """Return a licence as the hub's identifier: `unknown` for none, `other` for one that the hub does not list."""
    if licence is None or licence.strip().lower() in {"", UNKNOWN, "none"}:
        return UNKNOWN
    plain = licence.strip().lower().removesuffix("-only").removesuffix("-or-later")
    plain = _ALIASES.get(plain, plain)
    return plain if plain in HUB_LICENCES else OTHER


def restrictions(licence: str | None) -> list[str]:
    """Return what a licence does not allow of a data set under it, as sentences; none for a free one."""
    if identifier(licence) == UNKNOWN:
        return ["The licence is unknown: nobody has said that these rows may be shared or used."]
    text, found = str(licence).lower(), []
    if _NON_COMMERCIAL.search(text):
        found.append(f"The licence {licence} forbids commercial use.")
    if _NO_DERIVATIVES.search(text):
        found.append(f"The licence {licence} forbids sharing derived data, which this is.")
    if _SHARE_ALIKE.search(text):
        found.append(f"The licence {licence} asks that derived data is shared under the same terms.")
    return found


def front_matter(licences: Iterable[str | None]) -> dict[str, object]:
    """Return the fields of a card that name the licences of its sources."""
    given = list(dict.fromkeys(licences)) or [None]
    found = list(dict.fromkeys(map(identifier, given)))
    fields: dict[str, object] = {"license": found[0] if len(found) == 1 else found}
    if OTHER in found:
        fields["license_name"] = ", ".join(str(one) for one in given if identifier(one) == OTHER)
    return fields
