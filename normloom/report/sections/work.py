"""What the build cost: tokens, seconds, model loads and money."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from normloom.core.table import Manifest
from normloom.report.blocks import Block, Note, Table, Tiles, rounded
from normloom.report.material import Material
from normloom.report.plots import Series, bars
from normloom.report.section import Data, Section

COLUMNS = (
    "tokens_in",
    "tokens_out",
    "tokens_in_per_second",
    "tokens_out_per_second",
    "seconds",
    "load_seconds",
    "loads",
    "requests",
    "retries",
    "cost",
)


def collect(material: Material) -> Data:
    """Return what each table took when it was made, even if a later build reused it."""
    return {
        "build": material.lock.build,
        "stages": [
            {
                "stage": stage,
                "build": manifest.build,
                "model": material.models.get(stage, {}).get("model"),
                "seconds": manifest.seconds,
                "load_seconds": manifest.load_seconds,
                "tokens_in": manifest.tokens_in,
                "tokens_out": manifest.tokens_out,
                **_work(manifest),
            }
            for stage, manifest in material.manifests.items()
        ],
    }


def _work(manifest: Manifest) -> dict[str, float | None]:
    work = manifest.work
    if work is None:
        return dict.fromkeys(("loads", "tokens_in_per_second", "tokens_out_per_second", "requests", "retries", "cost"))
    return {
        "loads": work.loads,
        "tokens_in_per_second": work.tokens_in_per_second,
        "tokens_out_per_second": work.tokens_out_per_second,
        **{name: work.usage.get(name) for name in ("requests", "retries", "cost")},
    }


def draw(data: Data) -> Iterator[Block]:
    """Show totals, and tokens and seconds of each stage."""
    stages = data["stages"]
    costs, loads = ([stage[name] for stage in stages if stage[name] is not None] for name in ("cost", "loads"))
    yield Tiles(
        values={
            "tokens read": sum(stage["tokens_in"] for stage in stages),
            "tokens written": sum(stage["tokens_out"] for stage in stages),
            "seconds of all stages": rounded(sum(stage["seconds"] for stage in stages)),
            "model loads": sum(loads) if loads else None,
            **({"cost": rounded(sum(costs))} if costs else {}),
        }
    )
    if reused := [stage["stage"] for stage in stages if stage["build"] != data["build"]]:
        yield Note(text=f"Reused, with the figures of the build that made them: {', '.join(reused)}.")
    busy = [stage for stage in stages if stage["tokens_in"] or stage["tokens_out"]]
    if busy:
        yield _plot("Tokens of each stage", busy, {"read": "tokens_in", "written": "tokens_out"}, axis="tokens")
    yield _plot("Wall time of each stage", stages, {"seconds": "seconds"}, axis="seconds")
    columns = [name for name in COLUMNS if any(stage[name] is not None for stage in stages)]
    yield Table(
        title="Work of each stage",
        headings=("stage", "model", *(name.replace("_", " ").replace("per second", "a second") for name in columns)),
        rows=[[stage["stage"], stage["model"] or "-", *(stage[name] for name in columns)] for stage in stages],
    )


def _plot(title: str, stages: list[Mapping[str, Any]], shown: Mapping[str, str], *, axis: str) -> Block:
    series = [Series(name=name, values=[stage[key] for stage in stages]) for name, key in shown.items()]
    return bars(title, [stage["stage"] for stage in stages], series, axis=axis, stacked=True)


SECTION = Section(name="work", title="Cost and tokens", collect=collect, draw=draw)
