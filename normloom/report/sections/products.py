"""Products with files: what they are, how trained models came about, and each file with size and digest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from normloom.core.rows.text import counted
from normloom.lineage.training import TrainingRecord, training_of
from normloom.report.blocks import Block, Table
from normloom.report.material import Material
from normloom.report.plots import lines
from normloom.report.section import Data, Section

DIGITS = 12  # of a digest
LISTED = 200  # files


def collect(material: Material) -> Data | None:
    """Return the products of a build by stage: kind, files, and of trained models base, rows, settings and curve."""
    products = {
        stage: {
            "kind": manifest.product,
            "files": {name: {"bytes": one.bytes, "sha256": one.sha256} for name, one in manifest.attached.items()},
            "training": _training(training_of(material.store, manifest)),
        }
        for stage, manifest in material.manifests.items()
        if manifest.attached
    }
    return {"products": products} if products else None


def _training(found: TrainingRecord | None) -> dict[str, Any] | None:
    if found is None:
        return None
    curve = found.curve
    return {
        "bases": found.base_names,
        "learned_from": dict(found.learned_from),
        "settings": dict(found.settings),
        "curve": {name: curve.points(name) for name in curve.figures} if curve else {},
        "last": curve.rows.row(-1, named=True) if curve else {},
    }


def draw(data: Data) -> Iterator[Block]:
    """Show trained models and their curves, then all files."""
    products: Mapping[str, Any] = data["products"]
    trained = {stage: one["training"] for stage, one in products.items() if one["training"]}
    if trained:
        yield Table(
            title="Trained models",
            headings=("stage", "product", "base", "learned from", "files", "bytes", "steps"),
            rows=[[stage, *_model(products[stage], found)] for stage, found in trained.items()],
        )
        yield from _curves(trained)
        yield Table(
            title="Hyperparameters",
            headings=("setting", *trained),
            rows=[
                [name, *(_told(found["settings"].get(name)) for found in trained.values())]
                for name in dict.fromkeys(name for found in trained.values() for name in found["settings"])
            ],
            folded=True,
        )
    files = [
        [stage, one["kind"], name, file["bytes"], file["sha256"][:DIGITS]]
        for stage, one in products.items()
        for name, file in one["files"].items()
    ]
    title = "Files" if len(files) <= LISTED else f"Files: the first {LISTED} of {len(files):,}"
    yield Table(title=title, headings=("stage", "product", "file", "bytes", "sha256"), rows=files[:LISTED])


def _model(product: Mapping[str, Any], found: Mapping[str, Any]) -> list[Any]:
    learned = ", ".join(f"{counted(rows)} of {table}" for table, rows in found["learned_from"].items())
    sizes = [file["bytes"] for file in product["files"].values()]
    last = found["last"].get("step")
    return [product["kind"], ", ".join(found["bases"]) or "-", learned or "-", len(sizes), sum(sizes), last]


def _curves(trained: Mapping[str, Mapping[str, Any]]) -> Iterator[Block]:
    """Yield a plot of the first figure of each curve; curves with the same figure share one."""
    firsts = {stage: next(iter(found["curve"]), None) for stage, found in trained.items()}
    for figure in dict.fromkeys(filter(None, firsts.values())):
        curves = {stage: trained[stage]["curve"][figure] for stage, first in firsts.items() if first == figure}
        yield lines(f"Training: {figure.replace('_', ' ')}", curves, axis="step", value=figure.replace("_", " "))


def _told(value: Any) -> str:
    return "-" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


SECTION = Section(name="products", title="Products", collect=collect, draw=draw)
