"""The licence of a model, from its card or its package on this machine; the hub is not asked."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from normloom.models.files.locate import PACKAGED

CARD = "README.md"


def model_licence(model: str, revision: str) -> str | None:
    """Return the licence that a model's card names, or that of the package that holds it; None if unknown."""
    if model in PACKAGED:
        return _of_package(PACKAGED[model].distribution)
    path = Path(model).expanduser()
    card = path / CARD if path.is_dir() else _cached(model, revision)
    return _of_card(card) if card and card.is_file() else None


def _of_package(distribution: str) -> str | None:
    try:
        told = metadata.metadata(distribution)
    except metadata.PackageNotFoundError:
        return None
    fields = {name: told[name] for name in ("License-Expression", "License") if name in told}
    named = next(iter(fields.values()), None)
    classified = [one.rpartition(" :: ")[2] for one in told.get_all("Classifier", []) if one.startswith("License ::")]
    short = named if named and "\n" not in named else None
    licence = short or next(iter(classified), None)
    return f"{licence} (of the package {distribution})" if licence else None


def _cached(model: str, revision: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    commit = None if revision == "-" or " " in revision else revision  # a digest, shortened
    try:
        found = try_to_load_from_cache(model, CARD, revision=commit)
    except ValueError:  # no name of a repository
        return None
    return Path(found) if isinstance(found, str) else None


def _of_card(card: Path) -> str | None:
    import yaml
    from huggingface_hub import ModelCard

    try:
        licence = ModelCard.load(card).data.get("license")
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return str(licence) if licence else None
