"""Notes on a table of model answers: how it was scored, and answers that were cut off before they began."""

from __future__ import annotations

import json

from normloom.core.table import Manifest
from normloom.tasks.rejection.generate import CUT_EMPTY

LACKS = {
    "seed": "takes no seeds: what it drew cannot be drawn again",
    "response_format": "takes no JSON schema: JSON was asked for in words",
}


def scores_of(manifest: Manifest) -> str | None:
    """Return how a table's scores were obtained if not from log-probabilities; None for other tables."""
    written = sum(part.usage.get("written_answers", 0) for part in manifest.parts)
    if not written:
        return None
    options = json.loads(manifest.key_fields["model"].get("options", "{}"))  # none of several models by role
    if options.get("scores") == "votes":
        return f"each score is the share of {options.get('votes', 5)} sampled answers"
    return "each score is one written answer, not a probability"


def lacks_of(manifest: Manifest) -> list[str]:
    """Return the fields that a table's endpoint does not support: `seed`, `response_format`."""
    options = json.loads((manifest.key_fields["model"] or {}).get("options", "{}"))
    return [name for name in options.get("omit", ()) if name in LACKS]


def length_warning(manifest: Manifest) -> str | None:
    """Return a warning if most responses were cut off before they began, as with reasoning models."""
    cut = int(manifest.metrics.get(CUT_EMPTY, 0))
    if not cut or 2 * cut <= manifest.count("rows"):
        return None
    limit = manifest.key_fields["arguments"]["sampling"]["max_tokens"]
    return (
        f"{cut} of {manifest.count('rows')} responses are empty, cut off at max_tokens ({limit}) before they began; "
        "raise generate.sampling.max_tokens: a model that thinks first needs a few thousand"
    )
