"""From what a command is given to the stages it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from normloom.core.errors import ConfigError, NormloomError
from normloom.core.formats.yaml_text import load_yaml
from normloom.core.models.needs import Needs
from normloom.core.models.product_model import ProductSpec
from normloom.core.names import is_flow_file
from normloom.core.stage import Stage, published_stage
from normloom.core.table import Manifest
from normloom.history.builds import locks
from normloom.models.openai.memory import recall
from normloom.settings.config import load_profile, override, validated
from normloom.settings.product_models import out_of_products
from normloom.settings.system import System
from normloom.settings.systems import system_named, system_names
from normloom.steps.graph import model_uses, stages_of, with_models, with_needs
from normloom.store.store import Store
from normloom.workers.actors.node_engines import identified
from normloom.workers.resources import Resources

OPTIONS = {"source.path": "--source", "source.text_column": "--text-column", "source.limit": "--limit"}
OF_THE_BUILD = frozenset(
    {"resources", "quarantine_budget", "release", "remake", "spending", "chat"}
)  # sections that change no stage


NEEDS = "resources.needs"


class Prepared(NamedTuple):
    """A system with its checked settings, what its build may occupy, and the last stages of its flow."""

    system: System
    config: Any
    resources: Resources
    ends: list[Stage]


def stages_for(name: str, *, profile: str, assignments: Sequence[str], store: Store) -> Prepared:
    """Return a system under a profile with some settings changed; raises ConfigError naming what is wrong.

    Tables of other systems that the flow starts from are the newest in the store. A change without effect on any
    stage is refused: its author would mistake the build for another.
    """
    system = _named(name, store)
    given = load_profile(profile, system.name, system.config.roles())
    require_options(system, assignments, name=name)
    config, resources = validated(system.config, override(given, assignments))
    reads = _read(system.reads(config), system.name, store)
    prepared = Prepared(system, config, resources, system.stages(config, **reads))
    for position, assignment in enumerate(assignments):
        rest = [*assignments[:position], *assignments[position + 1 :]]
        if _is_ignored(assignment, prepared, override(given, rest), reads):
            raise ConfigError(_ignored(assignment, prepared, reads))
    prepared = prepared._replace(ends=with_models(prepared.ends, out_of_products(store, reader=system.name)))
    prepared = prepared._replace(ends=with_needs(prepared.ends, _needs(prepared, assignments)))
    return prepared._replace(ends=_where_they_run(with_models(prepared.ends, recall), resources))


def _needs(prepared: Prepared, assignments: Sequence[str]) -> dict[str, Needs]:
    """Return the needs that the settings give to stages of the flow, in place of those that their steps declare.

    A profile serves several systems, so it may name stages that this one has not got; an assignment may not.
    """
    stages = {stage.name for stage in stages_of(*prepared.ends)}
    known = {name: needs for name, needs in prepared.resources.needs.items() if name in stages}
    unknown = sorted(prepared.resources.needs.keys() - known.keys())
    if unknown and any(_name(assignment).startswith(NEEDS) for assignment in assignments):
        available = ", ".join(sorted(stages))
        raise ConfigError(f"{NEEDS}: unknown stage {unknown[0]!r} of {prepared.system.name}; available: {available}")
    return known


def _where_they_run(ends: Sequence[Stage], resources: Resources) -> list[Stage]:
    """Return the flow with its models as the nodes of the cluster know them, if the build is to run on one."""
    if resources.address is None:
        return list(ends)
    specs = [spec for spec in model_uses(stages_of(*ends)) if not isinstance(spec, ProductSpec)]
    found = {spec.model_dump_json(): spec for spec in identified(specs, resources)}
    return with_models(ends, lambda spec: found.get(spec.model_dump_json(), spec))


def _named(name: str, store: Store) -> System:
    """Return a system; raises ConfigError, which names the file if the store has builds of a system in one."""
    if not is_flow_file(name) and name not in system_names() and name in store.systems():
        lock = next(iter(locks(store, name, newest=1)), None)
        if lock and lock.file:
            raise ConfigError(f"{name} was built from {lock.file}: name that file instead")
        raise ConfigError(f"{name} was built from Python, so no command can build it: run that script or notebook")
    return system_named(name)


def require_options(system: System, assignments: Sequence[str], *, name: str) -> None:
    """Raise ConfigError for an option that stands for a setting which the system, given by `name`, does not have."""
    for assignment in assignments:
        setting = _name(assignment)
        if setting in OPTIONS and not _has(system.config, setting.split(".")):
            raise ConfigError(
                f"{system.name} takes no {OPTIONS[setting]}: it has no setting {setting}; "
                f"`normloom build {name}` without it uses the system's own input"
            )


def _has(kind: Any, path: Sequence[str]) -> bool:
    for step in path:
        field = getattr(kind, "model_fields", {}).get(step)
        if field is None:
            return False
        kind = field.annotation
    return True


def _name(assignment: str) -> str:
    return assignment.partition("=")[0].strip()


def _is_ignored(
    assignment: str, prepared: Prepared, without: Mapping[str, Any], reads: Mapping[str, Stage | None]
) -> bool:
    """Return whether an assignment changes the settings but none of the stages."""
    if _name(assignment).partition(".")[0] in OF_THE_BUILD:
        return False

    def same(settings: Mapping[str, Any]) -> bool:
        config, _ = validated(prepared.system.config, settings)
        return _told(prepared.system.stages(config, **reads)) == _told(prepared.ends)

    try:
        # equal if the profile says the same, or a later assignment says otherwise
        if validated(prepared.system.config, without)[0] == prepared.config or not same(without):
            return False
    except NormloomError:  # without it there is no flow: it matters
        return False
    value = load_yaml(assignment.partition("=")[2])
    if isinstance(value, bool) or not isinstance(value, int):
        return True
    try:  # a number may be what would be chosen without it: another one tells
        return same(override(dict(without), [f"{_name(assignment)}={value + 1}"]))
    except NormloomError:
        return True


def _told(ends: Sequence[Stage]) -> list[tuple[Any, ...]]:
    """Return all that tells two flows apart, stage by stage."""
    return [
        (
            *(stage.name, stage.function, stage.arguments, stage.values, stage.model, stage.part_rows, stage.contract),
            *(stage.quarantine_budget, stage.table, [upstream.name for upstream in stage.upstream]),
        )
        for stage in stages_of(*ends)
    ]


def _ignored(assignment: str, prepared: Prepared, reads: Mapping[str, Stage | None]) -> str:
    setting = _name(assignment)
    option = OPTIONS.get(setting, f"--set {assignment}")
    why = "other settings switch off what it changes"
    source = getattr(prepared.config, "source", None)
    tables = [stage.table for stage in reads.values() if stage and stage.table]
    if setting.startswith("source.") and isinstance(source, BaseModel) and getattr(source, "path", None) is None:
        why = "it applies to a file, and none is given with --source"
    elif tables:
        why = f"it starts from the published table {tables[0]}; give --source to start from a file"
    return f"{option} would change nothing in this build of {prepared.system.name} ({why}): leave it out"


def _read(reads: Mapping[str, str], reader: str, store: Store) -> dict[str, Stage | None]:
    """Return a stage for each published table that a flow starts from, None if it has no such table.

    A table that was made from another source than the first one, by a build that did not come to its end, is none.
    """
    newest = {parameter: store.current(*table.split("/")) for parameter, table in reads.items()}
    first = next(iter(newest.values()), None)
    origins = _origins(first, store) if first else set()
    return {
        parameter: published_stage(manifest.ref, reader=reader)
        if manifest and (manifest == first or _origins(manifest, store) <= origins)
        else None
        for parameter, manifest in newest.items()
    }


def _origins(manifest: Manifest, store: Store) -> set[str]:
    """Return the content of the tables at the beginning of the rows of a table."""
    if not manifest.inputs:
        return {manifest.content}
    return {content for ref in manifest.inputs for content in _origins(store.manifest(ref), store)}
