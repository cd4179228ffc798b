"""What was built, when, with which models, and what it is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from normloom.history.commands import view_command
from normloom.history.public import without_secrets
from normloom.models.files.locate import has_small
from normloom.report.blocks import Block, Note, Table, Tiles
from normloom.report.material import Material
from normloom.report.section import Data, Section

WORTH = (
    "A 135M model wrote and judged these rows: its verdicts are near chance. The figures below prove the pipeline; "
    "for data to train on, build with a profile of larger models."
)
PUBLISHED = "publish"  # the stage of the released table, if a system has one
_DIGITS = 12  # of a digest
COMMIT = "commit "  # begins what stands for the weights of a model of the hub


def collect(material: Material) -> Data:
    """Return build, profile, start, rows of the last stages, models, and checks that warned."""
    lock, manifests = material.lock, material.manifests
    refs = (ref for manifest in manifests.values() for ref in (*manifest.inputs, *manifest.sides))
    read = {ref.stage for ref in refs if ref.system == lock.system}
    models: dict[tuple[str, ...], list[str]] = {}
    for stage, model in material.models.items():
        models.setdefault((model["model"], revision_of(model), model["engine"], model.get("dtype", "")), []).append(
            stage
        )
    return {
        "profile": lock.profile,
        "settings": [without_secrets(setting) for setting in lock.settings],
        "started": lock.started.isoformat() if lock.started else None,
        "released": {stage: manifest.count("rows") for stage, manifest in manifests.items() if stage not in read},
        "stages": len(lock.stages),
        "look": view_command(lock.system, material.store.root),
        "made": sum(manifest.build == lock.build for manifest in manifests.values()),
        "gone": list(material.gone),
        "stale": {stage: entry.stale for stage, entry in lock.stages.items() if entry.stale},
        "models": [
            {"model": model, "revision": revision, "engine": engine, "dtype": dtype, "stages": stages}
            for (model, revision, engine, dtype), stages in models.items()
        ],
        "embedded": any(map(has_small, material.models.values())),
        "checks": [
            {"stage": stage, "check": check.name, "found": check.detail}
            for stage, manifest in manifests.items()
            for check in manifest.checks
            if not check.passed
        ],
    }


def revision_of(model: Mapping[str, str]) -> str:
    """Return what tells this model from others of its name: its revision, or else the digest of its weights."""
    weights = model.get("weights", "")
    kind, digest = ("commit", weights.removeprefix(COMMIT)) if weights.startswith(COMMIT) else ("weights", weights)
    return model.get("revision") or (f"{kind} {digest[:_DIGITS]}" if digest else "-")


def draw(data: Data) -> Iterator[Block]:
    """Show the build at a glance."""
    if data["embedded"]:
        yield Note(text=WORTH, warning=True)
    for what, stages in (("no longer in the store", data["gone"]), ("stale", data["stale"])):
        if stages:
            yield Note(text=f"Tables that are {what}: {', '.join(stages)}.", warning=True)
    yield Tiles(
        values={
            **{f"rows of {stage}": rows for stage, rows in _headline(data["released"]).items()},
            "stages": data["stages"],
            "made by this build": data["made"],
            "profile": data["profile"] or "-",
            "started (UTC)": (data["started"] or "-")[:16].replace("T", " "),
        }
    )
    if data["settings"]:
        yield Note(text=f"Settings: {', '.join(data['settings'])}.")
    yield Note(text=f"To look at the rows: {data['look']}")
    headings = ("model", "revision", "engine", "dtype")
    rows = [[*(model[name] for name in headings), ", ".join(model["stages"])] for model in data["models"]]
    yield Table(title="Models", headings=(*headings, "stages"), rows=rows)
    if data["checks"]:
        rows = [[check["stage"], check["check"], check["found"]] for check in data["checks"]]
        yield Table(title="Checks that did not pass", headings=("stage", "check", "found"), rows=rows)


def _headline(released: Mapping[str, int]) -> Mapping[str, int]:
    return {PUBLISHED: released[PUBLISHED]} if PUBLISHED in released else released


SECTION = Section(name="build", title="The build", collect=collect, draw=draw)
