"""What the page of a product says of its files and, if it is a trained model, of its training."""

from __future__ import annotations

import json
from collections.abc import Iterator

from normloom.core.rows.text import counted
from normloom.core.table import Manifest
from normloom.lineage.training import STEP, Curve, TrainingRecord
from normloom.prefect.pages.markdown import table, text

DIGITS = 12  # of a digest
LISTED = 50  # files
LONGEST = 120  # characters of a setting
SHOWN = 8  # rows of a curve
MEGABYTE = 1e6
COLOUR = '%%{init: {"themeVariables": {"xyChart": {"plotColorPalette": "#1d4ed8"}}}}%%'  # its own is hardly seen


def files(manifest: Manifest) -> Iterator[str]:
    """Yield the section on the files of a product, if it has some."""
    rows = [(text(name), f"{one.bytes:,}", f"`{one.sha256[:DIGITS]}`") for name, one in manifest.attached.items()]
    if rows:
        more = f" The first {LISTED} are listed." if len(rows) > LISTED else ""
        yield "## Files"
        held = f"{counted(len(rows), 'file')}, {size(manifest.attached_bytes)}"
        yield f"The product is {text(manifest.product)}: {held}.{more}"
        yield table(("file", "bytes", "sha256"), rows[:LISTED])


def training(found: TrainingRecord) -> Iterator[str]:
    """Yield the section on the training of a model: base, rows, size, curve, hyperparameters."""
    yield "## Training"
    learned = [f"{counted(rows)} of {text(name)}" for name, rows in found.learned_from.items()]
    facts = [
        *((f"base ({text(role)})", _base(found, role)) for role in found.bases),
        ("learned from", ", ".join(learned) or "tables that are no longer in the store"),
        ("size", f"{counted(found.files, 'file')}, {size(found.bytes)}"),
    ]
    yield table(("", ""), facts)
    if found.curve:
        yield from _curve(found.curve)
    yield "### Hyperparameters"
    yield table(("setting", "value"), [(text(name), text(_short(value))) for name, value in found.settings.items()])


def _base(found: TrainingRecord, role: str) -> str:
    base = found.bases[role]
    weights = base.get("weights")
    kinds = [f"weights {weights[:DIGITS]}"] if weights else []
    kinds += [f"with {kind} {', '.join(found.through)}" for kind in ("adapter",) if kind in base]
    name = ", ".join(found.through) if base["model"] == "product" else base["model"]
    return text(", ".join([name, base["engine"], *kinds]))


def _curve(curve: Curve) -> Iterator[str]:
    first = curve.figures[0]
    points = curve.points(first)
    if len(points) > 1:
        steps, values = zip(*points, strict=True)
        name = first.replace("_", " ")
        title = f"{name} by step" if curve.each == 1 else f"{name} by step, the mean of {curve.each} rows a point"
        low, high = min(values), max(values)
        room = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
        lines = (
            "```mermaid",
            COLOUR,
            "xychart-beta",
            f"title {json.dumps(title)}",
            f'x-axis "step" {steps[0]} --> {steps[-1]}',
            f"y-axis {json.dumps(name)} {low - room:.6g} --> {high + room:.6g}",
            f"line [{', '.join(f'{value:.6g}' for value in values)}]",
            "```",
        )
        yield "\n".join(lines)
    shown = curve.rows.height - 1
    positions = sorted({round(shown * position / (SHOWN - 1)) for position in range(SHOWN)})
    rows = [[f"{row[0]:,}", *(_figure(value) for value in row[1:])] for row in _rows(curve, positions)]
    yield table((STEP, *(text(name.replace("_", " ")) for name in curve.figures)), [tuple(row) for row in rows])


def _rows(curve: Curve, positions: list[int]) -> list[tuple[float | None, ...]]:
    return curve.rows.select(STEP, *curve.figures)[positions].rows()


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def size(count: int) -> str:
    """Return bytes as people read them."""
    return f"{count / MEGABYTE:,.1f} MB" if count >= MEGABYTE / 10 else f"{count:,} bytes"


def _short(value: object) -> str:
    told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return told if len(told) <= LONGEST else f"{told[: LONGEST - 1]}…"
