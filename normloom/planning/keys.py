"""Stage keys: the fingerprint that says whether a table is still right.

The fields of a key hold by value everything the stage's function sees: its inputs' content, its
arguments (templates and taxonomies are arguments), the source it reaches, its model and contract.
Fields of a pydantic model that are declared with `exclude=True` say where something is, not what it
is (a path whose content digest is another field), and stay out. So do names of modules and functions: they are
recorded with the key for people (`normloom why`), the code enters it by content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from normloom.core.errors import ConfigError, UsageError
from normloom.core.machine.loaded import edited, reloaded
from normloom.core.machine.versions import installed_version
from normloom.core.models.model_roles import each_of
from normloom.core.models.protocol import ModelSpec
from normloom.core.models.routed_model import RoutedSpec
from normloom.core.stage import Stage
from normloom.models.identity import model_identity
from normloom.models.registry import engine_of
from normloom.planning.canonical import canonical, digest
from normloom.planning.code.called import Called
from normloom.planning.code.outdated import outdated
from normloom.planning.code.source import ReachedSource, one_look, source_of
from normloom.planning.code.source_text import PROJECT_PACKAGES

FORMAT = 2  # of keys; raising it makes every table again
NAMES = frozenset({"function", "source"})  # recorded with the fields of a key, and no part of it
LIBRARIES = ("polars",)  # with which the runner itself reads, writes and joins the rows of every stage


def key_fields(
    system: str, stage: Stage, *, inputs: Sequence[str], sides: Sequence[str], forgotten: str = ""
) -> dict[str, Any]:
    """Return all that decides a stage's table, by name; `inputs` and `sides` are content hashes.

    `forgotten` is the digest of the store's deny list, which enters the keys of sources. `code` is the digest of the
    source that is reached, `source` has that of each symbol. Raises UsageError, naming the stage, for a function that
    cannot enter a key, and for a library that is not installed.
    """
    called = Called(canonical)
    try:
        with one_look():
            called.add(stage.function)
            called.add_type(type(stage.arguments))
            called.roots.append(("normloom.workers.parts.part", "make_rows"))
            if stage.model:
                for spec in each_of(stage.model):
                    engine = engine_of(spec)
                    called.roots.append((engine.module, engine.attribute))
                    called.roots += _routing(spec)
            source = source_of(called.roots, live=called.live)
        _require_as_imported(stage, source)
    except UsageError as error:
        raise UsageError(f"stage {stage.name!r}: {error}") from error
    return {
        "format": FORMAT,
        "system": system,
        "stage": stage.name,
        "function": ":".join(called.roots[0]),
        "inputs": list(inputs),
        "sides": list(sides),
        **({"sides_on": stage.sides_on} if stage.sides_on else {}),
        **({"looks_up": list(stage.looks_up)} if stage.looks_up else {}),
        **({"reads": list(stage.reads)} if stage.reads is not None else {}),
        **({"side_reads": canonical(stage.side_reads)} if stage.side_reads else {}),
        **({"products": len(stage.products)} if stage.products else {}),
        **({"files": stage.files} if stage.files else {}),
        "arguments": _arguments(stage),
        **({"forgotten": forgotten} if forgotten and not stage.inputs else {}),
        "part_rows": stage.part_rows,
        "model": model_identity(stage.model) if stage.model else None,
        "contract": canonical(stage.contract),
        "libraries": {library: _version(library, stage) for library in sorted({*LIBRARIES, *stage.libraries})},
        **({"holds": called.values} if called.values else {}),
        "code": source.digest,
        "source": dict(source.symbols),
    }


def _routing(spec: ModelSpec) -> list[tuple[str, str]]:
    """Return the engines and libraries that route requests of a model with a router, apart from its base's engine."""
    if not isinstance(spec, RoutedSpec):
        return []
    encoders = [engine_of(spec.encoder)] if spec.encoder else []
    return [
        ("normloom.models.routing.routed", "RoutedModel"),
        *((engine.module, engine.attribute) for engine in encoders),
    ]


def stage_key(fields: Mapping[str, Any], *, remake: int = 0) -> str:
    """Return the key of a stage from its fields; each remake on demand has a key of its own."""
    deciding = {name: value for name, value in fields.items() if name not in NAMES}
    return digest({**deciding, "remake": remake} if remake else deciding)


def recipe(fields: Mapping[str, Any], *, compares: bool = False) -> str:
    """Return the digest of all that decides a part but the rows that it reads.

    Side tables that every part reads whole belong to it; those of which a part reads its own rows, or with which it
    only `compares` rows, do not.
    """
    deciding = {name: value for name, value in fields.items() if name not in NAMES | {"inputs"}}
    if "sides_on" in fields or "looks_up" in fields or compares:
        sides = fields["sides"]
        deciding["sides"] = sides[len(sides) - fields.get("products", 0) :]
    return digest(deciding)


def _require_as_imported(stage: Stage, source: ReachedSource) -> None:
    """Raise UsageError if other code runs than the key would say.

    That is so if a module was edited since it was imported, or was reloaded since a function of it was.
    """
    modules = dict.fromkeys(symbol.partition(":")[0] for symbol in source.symbols)
    if found := edited(modules):
        module, path = found
        again = "run it again" if module == "__main__" else "restart, or reload it and import its names again"
        raise UsageError(f"module {module!r} was edited after it was imported ({path}): {again}")
    own = frozenset(module for module in modules if module.partition(".")[0] not in PROJECT_PACKAGES)
    if old := outdated((stage.function, type(stage.arguments)), own, reloaded=reloaded()):
        where = "" if old.holder == old.module else " here" if old.holder == "__main__" else f" in {old.holder!r}"
        raise UsageError(
            f"{old.name!r} of module {old.module!r} is used{where} as it was before the module was edited and "
            f"reloaded: import it again{where}, or restart"
        )


def _arguments(stage: Stage) -> dict[str, Any]:
    """Return arguments and values by name; raises UsageError for one that cannot enter a key."""
    try:
        found = dict(canonical(stage.arguments))
        for name, value in sorted(stage.values.items()):
            found[name] = model_identity(value) if isinstance(value, ModelSpec) else _value(name, value)
    except TypeError as error:
        raise UsageError(
            f"stage {stage.name!r}: argument {error}; make it an input of the stage, or give it as plain values"
        ) from None
    return found


def _value(name: str, value: Any) -> Any:
    try:
        return canonical(value)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None


def _version(library: str, stage: Stage) -> str:
    try:
        return installed_version(library)
    except metadata.PackageNotFoundError:
        raise ConfigError(
            f"stage {stage.name!r} declares the library {library!r}, which is not installed: pip install {library}"
        ) from None
