"""Models loaded side by side, by role."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from normloom.core.models.model_roles import RolesSpec
from normloom.core.models.protocol import Closing, Embedder, LanguageModel, Metered


class Roles(Mapping[str, "LanguageModel | Embedder"]):
    """The models of a step by role, each loaded once; what they count is added up."""

    def __init__(self, spec: RolesSpec, *, threads: int | None = None) -> None:
        from normloom.models import load_model
        from normloom.models.adapters import loaded_for, on_base, served_by

        uses = list(spec.roles.values())
        self._loaded: dict[str, LanguageModel | Embedder] = {}
        self._models = {}
        for role, one in spec.roles.items():
            shared = loaded_for(one, uses)
            key = shared.model_dump_json()
            if key not in self._loaded:
                self._loaded[key] = load_model(shared, threads=threads)
            served = on_base(one)
            self._models[role] = served_by(self._loaded[key], served) if served else self._loaded[key]

    def __getitem__(self, role: str) -> LanguageModel | Embedder:
        return self._models[role]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def take_usage(self) -> dict[str, float]:
        """Return what all models counted since this was last asked."""
        usage: Counter[str] = Counter()
        for model in self._loaded.values():
            if isinstance(model, Metered):
                usage.update(model.take_usage())
        return dict(usage)

    def close(self) -> None:
        """Let go of all models."""
        for model in self._loaded.values():
            if isinstance(model, Closing):
                model.close()
