"""normloom verify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normloom.cli.common import DEFAULT_PROFILE, DEFAULT_STORE, FAILED, JsonOption, StoreOption, err, escaped, out
from normloom.core.errors import ConfigError, UsageError
from normloom.core.formats.json_text import json_text

if TYPE_CHECKING:
    from normloom.history.builds import BuildLock
    from normloom.run.reproduce import Sample
    from normloom.store.store import Store
    from normloom.store.verify import Damage


def verify(
    system: Annotated[
        str | None,
        typer.Argument(help="Only the tables of this system, or of the flow in this Python file.", show_default=False),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    sample: Annotated[
        int, typer.Option(min=0, help="Rebuild this many random parts of each system's last build and compare them.")
    ] = 0,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove damaged parts, and rebuild them with the last build's settings.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Check every stored file, manifest, key and link; with --sample, also that rebuilt parts are the same.

    Files are compared with their checksums, manifests with their seals and their parts' records, keys with their
    fields; the last build's tables, their inputs, the parents of their rows and the release must exist. A rebuilt part
    must be bit-equal without a model or with a scripted one, and have equal texts and numbers within 0.001 with
    `transformers`; other engines promise nothing, and differences are only shown. docs/trust.md.

    Exits with 1 if anything is damaged and was not repaired, or if a rebuilt part differs more than allowed. --repair
    rebuilds only the damaged parts, of installed systems and of flows in files; for a flow that was built from Python
    it removes them, and the next build rebuilds them.

    Examples:

        normloom verify

        normloom verify savacu --sample 20

        normloom verify my_flow.py --repair

    With --json one object: damaged (system, stage, key, part, file, problem), repaired, sample (stage, part, promise,
    found, same) and left_out (stage and why none of its parts is in the sample), of several systems as SYSTEM/stage.
    """
    from normloom.history.links import broken_links
    from normloom.history.removal.gc import idle
    from normloom.history.resume import rebuild_commands
    from normloom.labelling.book import FOLDER as LABELS
    from normloom.settings.systems import name_of
    from normloom.store.store import Store
    from normloom.store.verify import repair as repair_damage
    from normloom.store.verify import verify as verify_store

    where, given = Store(store), system
    system = system and name_of(system)
    if system:
        where.require(system)
    found = [*verify_store(where, system), *broken_links(where, system)]
    if not json_:
        for damage in found:
            err.print(f"[red]damaged[/] {escaped(damage)}", highlight=False, soft_wrap=True)
    left: list[str] = []
    if repair:
        damaged = [name for name in dict.fromkeys(damage.system for damage in found) if name != LABELS]
        for name in damaged:
            with idle(where, name) as hold:
                repair_damage(where, [damage for damage in found if damage.system == name], hold)
        left = [name for name in damaged if not _built(where, name, given, json_)]
    taken = _sampled(where, system, given, sample) if sample else None
    if json_:
        told = {"damaged": [asdict(damage) for damage in found], "repaired": repair and bool(found)}
        remade = {"sample": [asdict(one) for one in taken.remade], "left_out": taken.left_out} if taken else {}
        print(json_text({**told, **remade}))
    else:
        out.print(_closing(found, rebuild_commands(left, where), repaired=repair), highlight=False, soft_wrap=True)
        if taken:
            _show(taken)
    lost = [damage for damage in found if damage.system == LABELS]  # what people said is made by nothing again
    if (found and not repair) or lost or (taken and not all(one.same for one in taken.remade)):
        raise typer.Exit(FAILED)


def _buildable(store: Store, system: str, given: str | None) -> tuple[str, BuildLock] | None:
    """Return the command-line name of a system, or its file, with its last build; None if it has neither."""
    from normloom.core.names import is_flow_file
    from normloom.history.builds import locks
    from normloom.settings.systems import system_names

    lock = next(iter(locks(store, system, newest=1)), None)
    target = given if given and is_flow_file(given) else system if system in system_names() else lock and lock.file
    if lock is None or not target or (is_flow_file(target) and not Path(target.partition(":")[0]).is_file()):
        return None
    return target, lock


def _built(store: Store, system: str, given: str | None, quiet: bool) -> bool:
    """Build a system with the settings of its last build and return whether that was possible."""
    from normloom.cli.run import run_build

    found = _buildable(store, system, given)
    if found is None:
        return False
    target, lock = found
    profile = lock.profile or DEFAULT_PROFILE
    run_build(target, profile=profile, assignments=lock.settings, root=store.root, quiet=quiet)
    return True


def _sampled(store: Store, system: str | None, given: str | None, count: int) -> Sample:
    """Return the sample of a system; or of all, with their names before those of stages."""
    from normloom.run.reproduce import Sample

    if system:
        return _sample_of(store, system, given, count)
    remade, left_out = [], {}
    for name in store.systems():
        try:
            found = _sample_of(store, name, None, count)
        except (UsageError, ConfigError) as error:
            left_out[name] = str(error)
            continue
        remade += [replace(one, stage=f"{name}/{one.stage}") for one in found.remade]
        left_out |= {f"{name}/{stage}": why for stage, why in found.left_out.items()}
    return Sample(remade=remade, left_out=left_out)


def _sample_of(store: Store, system: str, given: str | None, count: int) -> Sample:
    from normloom.core.progress import LogProgress
    from normloom.prefect.quiet import quiet_libraries
    from normloom.run.reproduce import sample
    from normloom.run.runner import StageRunner
    from normloom.settings.settings import stages_for
    from normloom.steps.graph import model_uses, stages_of
    from normloom.workers.pool import Pool

    found = _buildable(store, system, given)
    if found is None:
        raise UsageError(
            "--sample needs a finished build by normloom build, of an installed system or of a flow whose file exists: "
            f"{system} has none; give the file of its flow"
        )
    target, lock = found
    quiet_libraries()
    prepared = stages_for(target, profile=lock.profile or DEFAULT_PROFILE, assignments=lock.settings, store=store)
    stages = stages_of(*prepared.ends)
    pool = Pool(prepared.resources, model_uses(stages))
    runner = StageRunner(system=system, store=store, pool=pool, build="verify", progress=LogProgress())
    try:
        with store.building(system):
            return sample(stages, lock, store=store, runner=runner, count=count)
    finally:
        pool.close()


def _show(taken: Sample) -> None:
    for one in taken.remade:
        mark = "[green]same[/]" if one.same else "[red]differs[/]"
        out.print(
            f"{mark} {one.stage}, part {one.part}: {escaped(one.found)} (promised: {one.promise})",
            highlight=False,
            soft_wrap=True,
        )
    for stage, why in taken.left_out.items():
        out.print(f"[dim]left out {stage}: {escaped(why)}", highlight=False, soft_wrap=True)
    kept = sum(one.same for one in taken.remade)
    parts = "part" if len(taken.remade) == 1 else "parts"
    out.print(f"Made {len(taken.remade):,} {parts} again; {kept:,} came out as promised.", highlight=False)


def _closing(found: Sequence[Damage], builds: Sequence[str], *, repaired: bool) -> str:
    if not found:
        return "All files are intact."
    count = len(found)
    if not repaired:
        return f"{count} damaged; --repair rebuilds the damaged parts."
    if builds:
        return f"{count} damaged, removed; to rebuild them: {'; '.join(builds)}"
    return f"{count} damaged, rebuilt."
