"""Whether the engines that models ask for are installed here, without importing them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from normloom.core.models.protocol import ModelSpec
from normloom.models.registry import engine_of


def missing_engines(specs: Iterable[ModelSpec]) -> dict[str, str]:
    """Return what to do about each engine that models ask for and this environment lacks: engine -> sentence."""
    return {spec.engine: problem for spec in specs if (problem := _problem(spec))}


def _problem(spec: ModelSpec) -> str | None:
    engine = engine_of(spec)
    missing = [module for module in engine.imports if find_spec(module) is None]
    if not missing:
        return None
    remedy = f"; install it with: {engine.install}" if engine.install else ""
    return f"engine {spec.engine!r} (model {spec.model!r}) needs {', '.join(missing)}, not installed here{remedy}"
