"""The page of a build that failed: which stage, why, what is done, how to resume."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from normloom.core.errors import cause
from normloom.core.table import PartRecord, total
from normloom.prefect.pages.artifact import ARTIFACTS, artifact_key, publish
from normloom.prefect.pages.lineage_page import LEGEND, Lineage, lineage_graph
from normloom.prefect.pages.markdown import link, table, text
from normloom.run.budget import by_reason
from normloom.run.runner import Begun
from normloom.store.parts import scan_parts
from normloom.store.store import Store

REASONS = 5  # reasons of quarantined rows that are shown, the commonest
PAYLOAD_CHARS = 300


def publish_failure(lineage: Lineage, begun: Begun | None, *, store: Store, command: str) -> str | None:
    """Leave the page with the flow run that is at work, as a version of the system's page; return its address."""
    stage, error = next(iter(lineage.failed.items()))
    page = failure_page(lineage, begun, store=store, command=command)
    published = publish(
        artifact_key(lineage.system), page, f"FAILED at {stage}: {cause(error)}"[:PAYLOAD_CHARS], lineage.reach
    )
    return f"{ARTIFACTS}/artifact/{published}" if published else None


def failure_page(lineage: Lineage, begun: Begun | None, *, store: Store, command: str) -> str:
    """Return the page; `begun` is the table of the stage that failed, if it came that far; `command` resumes."""
    stage, error = next(iter(lineage.failed.items()))
    parts = list(store.parts(begun.directory, verify=False).values()) if begun else []
    aside = _quarantined(begun, parts)
    more = [name for name in lineage.failed if name != stage]
    also = [f"Failed too: {', '.join(map(text, more))}."] if more else []
    history = link("its earlier builds", f"{ARTIFACTS}/key/{artifact_key(lineage.system)}")
    return (
        "\n\n".join(
            [
                f"# {text(lineage.system)}: build {text(lineage.build)} failed",
                f"Stage **{text(stage)}** failed: {text(cause(error))}",
                *also,
                f"## Rows of {text(stage)}",
                _rows(begun, parts),
                *(["## Why rows are in quarantine", _reasons(aside)] if not aside.is_empty() else []),
                "## How to resume",
                "Finished parts are kept. Run",
                f"```\n{command}\n```",
                "or press *Retry* on the run of a deployment.",
                *_look(lineage, stage, aside),
                "## Tables",
                f"{_standing(lineage)} See {history}.",
                lineage_graph(lineage),
                LEGEND,
            ]
        )
        + "\n"
    )


def _rows(begun: Begun | None, parts: list[PartRecord]) -> str:
    if begun is None:
        return "It failed before it read a row."
    done = sum(part.stop - part.start for part in parts)
    counts = {kind: sum(part.files[kind].rows for part in parts) for kind in ("rows", "dropped", "quarantined")}
    by_rule = ", ".join(f"{text(rule)} {count:,}" for rule, count in total(p.quarantined_by for p in parts).items())
    return table(
        ("", "rows", ""),
        [
            ("in", f"{begun.rows_in:,}", ""),
            ("done", f"{done:,}", f"in {len(parts):,} finished parts"),
            ("out", f"{counts['rows']:,}", ""),
            ("dropped", f"{counts['dropped']:,}", ""),
            ("quarantined", f"{counts['quarantined']:,}", by_rule),
        ],
    )


def _quarantined(begun: Begun | None, parts: list[PartRecord]) -> pl.DataFrame:
    return scan_parts(begun.directory, parts, "quarantined").collect() if begun and parts else pl.DataFrame()


def _reasons(aside: pl.DataFrame) -> str:
    shown = by_reason(aside).head(REASONS).iter_rows(named=True)
    return table(
        ("rows", "rule", "reason", "an example", "its row"),
        [
            (f"{one['len']:,}", text(one["rule"]), *(text(_cut(one[name])) for name in ("reason", "payload", "row_id")))
            for one in shown
        ],
    )


def _look(lineage: Lineage, stage: str, aside: pl.DataFrame) -> Iterator[str]:
    if not aside.is_empty():
        yield f"All rows in quarantine: `normloom quarantine {lineage.system} {stage}`, with the build's `--store`."


def _standing(lineage: Lineage) -> str:
    made = sum(manifest.build == lineage.build for manifest in lineage.manifests.values())
    left = len(lineage.graph) - len(lineage.manifests)
    return f"{made} made by this build, {len(lineage.manifests) - made} reused, {left} not made."


def _cut(value: object) -> str:
    told = "" if value is None else str(value)
    return told if len(told) <= PAYLOAD_CHARS else f"{told[:PAYLOAD_CHARS]}…"
