"""The lock that a build leaves: what was asked, and the table that each stage has, as YAML made for diffs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from normloom.core.table import Manifest
from normloom.planning.costs.spent import Spent
from normloom.steps.selection import Selection

if TYPE_CHECKING:
    from normloom.run.build import BuildRequest


def selected(selection: Selection) -> dict[str, Any]:
    """Return what was chosen, as a lock has it."""
    chosen = {name: value for name, value in vars(selection).items() if value}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()}


def lock_text(
    request: BuildRequest,
    identity: str,
    manifests: Iterable[Manifest],
    reads: Mapping[str, Manifest],
    stale: Mapping[str, str],
    spent: Spent,
) -> str:
    """Return the text of the lock."""
    selection = selected(request.selection)
    stages = {
        manifest.stage: {
            "key": manifest.key,
            "content": manifest.content,
            "rows": manifest.count("rows"),
            "dropped": manifest.count("dropped"),
            "quarantined": manifest.count("quarantined"),
            **({"stale": stale[manifest.stage]} if manifest.stage in stale else {}),
            **({"model": dict(manifest.key_fields["model"])} if manifest.key_fields["model"] else {}),
        }
        for manifest in manifests
    }
    source = request.source.model_dump(mode="json", exclude_defaults=True)
    head = {
        "system": request.system,
        "build": identity,
        **({"file": str(Path(request.target).absolute())} if request.target not in {None, "", request.system} else {}),
        "profile": request.profile,
        "settings": list(request.settings),
        **({"selection": selection} if selection else {}),
        **({"fresh_hours": request.fresh_hours} if request.fresh_hours else {}),
        **({"source": source} if source else {}),
        "spent": spent.model_dump(exclude_none=True),
    }
    read = {name: manifest.ref.model_dump() for name, manifest in reads.items()}
    whole = {**head, **({"reads": read} if read else {}), "stages": stages}
    return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)
