"""normloom verify."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from normloom.cli.common import DEFAULT_PROFILE, DEFAULT_STORE, FAILED, JsonOption, StoreOption, err, escaped, out
from normloom.core.errors import UsageError

if TYPE_CHECKING:
    from normloom.run.reproduce import Sample
    from normloom.store.store import Store
    from normloom.store.verify import Damage


def verify(
    system: Annotated[str | None, typer.Argument(help="Only the tables of this system.", show_default=False)] = None,
    store: StoreOption = DEFAULT_STORE,
    sample: Annotated[
        int, typer.Option(min=0, help="Make this many random parts of the last build again and compare them.")
    ] = 0,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove damaged parts, and make them again with the last build's settings.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Check every stored file, manifest, key and link, and with --sample whether parts come out the same again.

    Files are compared with their checksums, manifests with their seals and their parts' records, keys with their
    fields; tables that the last build names, what these read, the parents of their rows and the release must be there.
    A part made again must be bit-equal without a model or with a scripted one, have equal texts and numbers within
    0.001 with `transformers`; other engines promise nothing, and differences are only shown. docs/trust.md.

    Exits with 1 if anything is damaged and was not repaired, or if a part came out otherwise than promised. --repair
    makes just the damaged parts again; for a flow that is no system it removes them, and the next build makes them.

    Examples:

        normloom verify

        normloom verify savacu --sample 20

        normloom verify savacu --repair

    With --json one object: damaged (system, stage, key, part, file, problem), repaired, sample (stage, part, promise,
    found, same) and left_out (stage and why none of its parts is in the sample).
    """
    from normloom.history.gc import idle
    from normloom.history.links import broken_links
    from normloom.store.store import Store
    from normloom.store.verify import repair as repair_damage
    from normloom.store.verify import verify as verify_store

    where = Store(store)
    if system and system not in where.systems():
        raise UsageError(
            f"no tables of {system} in {where.root}; systems there: {', '.join(where.systems()) or 'none'}"
        )
    if sample and not system:
        raise UsageError("--sample makes parts of one system again: name it, as in normloom verify savacu --sample 20")
    found = [*verify_store(where, system), *broken_links(where, system)]
    if not json_:
        for damage in found:
            err.print(f"[red]damaged[/] {escaped(damage)}", highlight=False, soft_wrap=True)
    left: list[str] = []
    if repair:
        for name in dict.fromkeys(damage.system for damage in found):
            with idle(where, name):
                repair_damage(where, [damage for damage in found if damage.system == name])
        left = [name for name in dict.fromkeys(damage.system for damage in found) if not _built(where, name, json_)]
    taken = _sampled(where, system, sample) if system and sample else None
    if json_:
        told = {"damaged": [asdict(damage) for damage in found], "repaired": repair and bool(found)}
        remade = {"sample": [asdict(one) for one in taken.remade], "left_out": taken.left_out} if taken else {}
        print(json.dumps({**told, **remade}))
    else:
        out.print(_closing(found, left, repaired=repair), highlight=False, soft_wrap=True)
        if taken:
            _show(taken)
    if (found and not repair) or (taken and not all(one.same for one in taken.remade)):
        raise typer.Exit(FAILED)


def _built(store: Store, system: str, quiet: bool) -> bool:
    """Build a system with the settings of its last build and return whether that could be done: not for own flows."""
    from normloom.cli.run import run_build
    from normloom.history.builds import locks
    from normloom.settings.systems import system_names

    lock = next(iter(locks(store, system, newest=1)), None)
    if lock is None or system not in system_names():
        return False
    profile = lock.profile or DEFAULT_PROFILE
    run_build(system, profile=profile, assignments=lock.settings, root=store.root, quiet=quiet)
    return True


def _sampled(store: Store, system: str, count: int) -> Sample:
    from normloom.core.progress import LogProgress
    from normloom.history.builds import locks
    from normloom.prefect.quiet import quiet_libraries
    from normloom.run.reproduce import sample
    from normloom.run.runner import StageRunner
    from normloom.settings.settings import stages_for
    from normloom.settings.systems import system_names
    from normloom.steps.graph import model_uses, stages_of
    from normloom.workers.pool import Pool

    lock = next(iter(locks(store, system, newest=1)), None)
    if lock is None or system not in system_names():
        raise UsageError(
            f"--sample needs a system that the command line builds, and a finished build; {system} has none"
        )
    quiet_libraries()
    prepared = stages_for(system, profile=lock.profile or DEFAULT_PROFILE, assignments=lock.settings, store=store)
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
    out.print(f"Made {len(taken.remade):,} parts again; {kept:,} came out as promised.", highlight=False)


def _closing(found: Sequence[Damage], left: Sequence[str], *, repaired: bool) -> str:
    if not found:
        return "All files are intact."
    count = len(found)
    if not repaired:
        return f"{count} damaged; --repair makes the damaged parts again."
    builds = "; ".join(f"normloom build {name}" for name in left)
    return f"{count} damaged, removed; to make them again: {builds}" if left else f"{count} damaged, made again."
