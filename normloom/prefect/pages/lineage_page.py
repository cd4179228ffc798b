"""The pages that a build leaves in Prefect's UI: one for each table, one for the build.

A page is a markdown artifact whose key is stable, so the artifact's history is its table's history.
Pages are a view; the manifests are the record.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from normloom.core.errors import StoreError
from normloom.core.table import CheckResult, Manifest, Work
from normloom.history.builds import BuildLock, StageLock, started
from normloom.history.commands import view_command
from normloom.lineage.training import TrainingRecord, training_of
from normloom.prefect.pages import product_page
from normloom.prefect.pages.artifact import ARTIFACTS, artifact_key, publish
from normloom.prefect.pages.markdown import label, link, table, text
from normloom.prefect.reach import ServerReach
from normloom.store.store import Store

MODEL_FIELDS = ("model", "revision", "engine", "dtype", "options", "weights")
NOT_YET = "not yet"
GIGABYTE = 1e9
HISTORY = 10  # entries
_FAILED = {"warn": "**warned**", "quarantine": "**rows quarantined**", "stop": "**failed**"}
ACROSS = 5  # a way of more tables is drawn from top to bottom: the page is narrow, and scaled down it cannot be read
_ACROSS = ("flowchart LR",)
_DOWN = ('%%{init: {"flowchart": {"nodeSpacing": 20, "rankSpacing": 28, "padding": 6}}}%%', "flowchart TB")
_CLASSES = (
    "classDef made fill:#d1fae5,stroke:#059669,color:#111827",
    "classDef reused fill:#e5e7eb,stroke:#6b7280,color:#111827",
    "classDef stale fill:#fde68a,stroke:#b45309,color:#111827",
    "classDef earlier fill:#f3f4f6,stroke:#6b7280,color:#111827,stroke-dasharray:4",
    "classDef unmade fill:#ffffff,stroke:#9ca3af,color:#4b5563,stroke-dasharray:4",
    "classDef failed fill:#fecaca,stroke:#b91c1c,color:#111827",
    "classDef here stroke:#1d4ed8,stroke-width:4px",
)
LEGEND = (
    "Green: made by this build. Grey: reused. Yellow: stale. Red: failed. "
    "Dashed: not reached when this page was written (grey: there is a table of an earlier build)."
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """The tables of a system as far as a build knows them; it fills them in while it runs.

    `graph` holds the stages that each stage reads, in the flow's order; `earlier` the tables there are before the
    build comes to them; `ready` the stages whose table it need not make, by its plan; `builds` those of the store,
    oldest first; `tasks` the ids of the task runs that brought tables up to date; `pages` the ids of the pages left so
    far; `stale` why a table is no longer right; `trainings` how the products that are models were trained; `failed` the
    errors of stages that failed, the first one first.
    """

    system: str
    build: str
    graph: Mapping[str, Sequence[str]]
    earlier: Mapping[str, Manifest] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    tasks: dict[str, str | None] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    stale: dict[str, str] = field(default_factory=dict)
    trainings: dict[str, TrainingRecord] = field(default_factory=dict)
    failed: dict[str, Exception] = field(default_factory=dict)
    builds: Sequence[BuildLock] = ()
    ready: frozenset[str] = frozenset()
    store: str = ""
    reach: ServerReach = field(default_factory=ServerReach)

    def link(self, stage: str) -> str:
        """Return a link to the page of this build, or where there is none yet to the history of the table."""
        return link(stage, self.address(stage))

    def address(self, stage: str) -> str:
        """Return where the page of a stage is."""
        if stage in self.pages:
            return f"{ARTIFACTS}/artifact/{self.pages[stage]}"
        manifest = self.table(stage)
        key = artifact_key(manifest.system, manifest.stage) if manifest else artifact_key(self.system, stage)
        return f"{ARTIFACTS}/key/{key}"

    def table(self, stage: str) -> Manifest | None:
        """Return the table of a stage: the one it has in this build, or else the earlier one."""
        return self.manifests.get(stage) or self.earlier.get(stage)

    def state(self, stage: str) -> str:
        """Return how a table stands in this build, as markdown."""
        manifest = self.manifests.get(stage)
        if manifest is None:
            earlier = self.earlier.get(stage)
            return f"from build {text(earlier.build)}, not reached yet" if earlier else NOT_YET
        origin = "made by this build" if manifest.build == self.build else f"reused from build {text(manifest.build)}"
        return f"**STALE** because {text(self.stale[stage])}; {origin}" if stage in self.stale else origin

    def rows(self, stage: str) -> str:
        """Return the number of rows of a stage's table."""
        manifest = self.table(stage)
        return f"{manifest.count('rows'):,}" if manifest else NOT_YET


def publish_stage(lineage: Lineage, stage: str) -> bool:
    """Leave the page of a stage's table with the run that is at work, or bring the one that it has up to date.

    Returns whether the server took it.
    """
    manifest = lineage.manifests[stage]
    _look_at_training(lineage, stage)
    counts = ", ".join(f"{manifest.count(kind):,} {kind}" for kind in ("rows", "dropped", "quarantined"))
    stale = "STALE; " if stage in lineage.stale else ""
    origin = "made" if manifest.build == lineage.build else "reused"
    description = f"{stale}{origin}; {counts}; from build {manifest.build}; store {lineage.store}"
    key, page, task = artifact_key(lineage.system, stage), lineage.pages.get(stage), lineage.tasks.get(stage)
    page = publish(key, stage_page(lineage, stage), description, lineage.reach, page=page, task=task)
    if page:
        lineage.pages[stage] = page
    return page is not None


def _look_at_training(lineage: Lineage, stage: str) -> None:
    """Take in how a product was trained, once; a page without that is better than none."""
    manifest = lineage.manifests[stage]
    if not manifest.attached or stage in lineage.trainings or not lineage.store:
        return
    try:
        found = training_of(Store(lineage.store), manifest)
    except (StoreError, OSError, pl.exceptions.PolarsError) as error:
        log.warning("the page of %s does not show its training: %s", stage, error)
        return
    if found:
        lineage.trainings[stage] = found


def publish_build(lineage: Lineage, *, loads: Mapping[str, int], lock: str, seconds: float) -> None:
    """Leave the page of the build with the flow run that is at work."""
    page = build_page(lineage, loads=loads, lock=lock, seconds=seconds)
    publish(artifact_key(lineage.system), page, f"build {lineage.build}", lineage.reach)


def stage_page(lineage: Lineage, stage: str) -> str:
    """Return the page of the table that a stage has in this build."""
    manifest = lineage.manifests[stage]
    state = lineage.state(stage)
    upstream = [
        (lineage.link(ref.known_to(lineage.system)), f"{ref.rows:,}", f"`{ref.key}`")
        for ref in (*manifest.inputs, *manifest.sides)
    ]
    downstream = [
        (lineage.link(name), lineage.rows(name), lineage.state(name))
        for name, reads in lineage.graph.items()
        if stage in reads
    ]
    system = link(lineage.system, f"{ARTIFACTS}/key/{artifact_key(lineage.system)}")
    long = _depth(lineage.graph) > ACROSS
    return _page(
        f"# {text(stage)}",
        f"{state[0].upper()}{state[1:]}. A stage of {system}.",
        lineage_graph(lineage, here=stage, near=long),
        LEGEND,
        "## Rows",
        _rows(manifest),
        f"To look at them: `{view_command(manifest.system, lineage.store, stage=manifest.stage)}`",
        *product_page.files(manifest),
        *(product_page.training(found) if (found := lineage.trainings.get(stage)) else ()),
        "## Checks",
        _checks(manifest.checks) or "The contract asks for none beyond its columns and keys.",
        "## Reads",
        table(("table", "rows", "key"), upstream) or "No table: the flow starts here.",
        "## Read by",
        table(("table", "rows", "state"), downstream) or "No stage: the flow ends here.",
        "## When it was made in this store",
        _history(manifest, lineage.builds),
        "## How it was made",
        table(("", ""), _making(manifest)),
        *(["## The whole flow", lineage_graph(lineage, here=stage)] if long else []),
    )


def build_page(lineage: Lineage, *, loads: Mapping[str, int], lock: str, seconds: float) -> str:
    """Return the page of a whole build; `loads` is how often each model was loaded, `lock` the name of its file."""
    made = sum(manifest.build == lineage.build for manifest in lineage.manifests.values())
    loaded = ", ".join(f"{text(model)} {count}x" for model, count in loads.items()) or "none"
    stages = [
        (lineage.link(stage), lineage.state(stage), *_figures(lineage.manifests.get(stage))) for stage in lineage.graph
    ]
    return _page(
        f"# {text(lineage.system)}: build {text(lineage.build)}",
        f"{made} of {len(lineage.graph)} tables made, {len(lineage.manifests) - made} reused, in {seconds:,.1f} s. "
        f"Model loads: {loaded}. Lock: {text(lock)}.",
        lineage_graph(lineage),
        LEGEND,
        "## Tables",
        table(("table", "state", "attempted", "rows", "dropped", "quarantined", "seconds"), stages),
    )


def lineage_graph(lineage: Lineage, *, here: str | None = None, near: bool = False) -> str:
    """Return the mermaid graph of all tables, or of those next to `here`, each node a link to its page."""
    graph = lineage.graph
    if here is not None and near:
        graph = {
            stage: [upstream for upstream in reads if here in (stage, upstream)]
            for stage, reads in graph.items()
            if here in (stage, *reads) or stage in graph[here]
        }
    nodes = {stage: f"s{index}" for index, stage in enumerate(graph)}
    lines = ["```mermaid", *(_ACROSS if _depth(graph) <= ACROSS else _DOWN)]
    for stage, node in nodes.items():
        rows = f"{lineage.rows(stage)} rows" if lineage.table(stage) else NOT_YET
        lines.append(f'{node}["{label(stage)}<br/>{rows}"]:::{_class(lineage, stage)}')
        lines.append(f'click {node} href "{lineage.address(stage)}"')
    for stage, reads in graph.items():
        lines += [f"{nodes[upstream]} --> {nodes[stage]}" for upstream in dict.fromkeys(reads)]
    lines += _CLASSES
    if here is not None:
        lines.append(f"class {nodes[here]} here")
    return "\n".join([*lines, "```"])


def _depth(graph: Mapping[str, Sequence[str]]) -> int:
    """Return how many tables the longest way through the graph meets."""
    depths: dict[str, int] = {}
    for stage, reads in graph.items():
        depths[stage] = 1 + max((depths[upstream] for upstream in reads), default=0)
    return max(depths.values(), default=0)


def _class(lineage: Lineage, stage: str) -> str:
    manifest = lineage.manifests.get(stage)
    if stage in lineage.failed:
        return "failed"
    if manifest is None:
        return "earlier" if stage in lineage.earlier else "unmade"
    if stage in lineage.stale:
        return "stale"
    return "made" if manifest.build == lineage.build else "reused"


def _rows(manifest: Manifest) -> str:
    counts = {kind: f"{manifest.count(kind):,}" for kind in ("rows", "dropped", "quarantined")}
    return table(
        ("", "rows", "why"),
        [
            ("in", f"{manifest.rows_in:,}", ""),
            ("attempted", f"{manifest.attempts:,}", "= out + dropped + quarantined"),
            ("out", f"**{counts['rows']}**", ""),
            ("dropped", counts["dropped"], _reasons(manifest.dropped_by)),
            ("quarantined", counts["quarantined"], _reasons(manifest.quarantined_by)),
        ],
    )


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{text(reason)} {count:,}" for reason, count in counts.items())


def _checks(checks: Sequence[CheckResult]) -> str:
    return table(
        ("check", "result", "found"),
        [
            (text(check.name), "passed" if check.passed else _FAILED[check.on_fail], text(check.detail))
            for check in checks
        ],
    )


def _history(manifest: Manifest, builds: Sequence[BuildLock]) -> str:
    """Return the builds that made this table and those before it, newest first; builds that reused it are left out."""
    made: list[tuple[str, StageLock]] = []
    for lock in builds:
        stage = lock.stages.get(manifest.stage)
        if lock.system == manifest.system and stage and not (made and made[-1][1].key == stage.key):
            made.append((lock.build, stage))
    if made and made[-1][1].key == manifest.key:
        made.pop()
    counts = {kind: manifest.count(kind) for kind in ("rows", "dropped", "quarantined")}
    made.append((manifest.build, StageLock(key=manifest.key, content=manifest.content, **counts)))
    before = [None, *(stage.rows for _, stage in made)]
    rows = [
        (
            text(build),
            _when(build),
            f"{stage.rows:,}",
            _change(stage.rows, last),
            f"{stage.dropped:,}",
            f"{stage.quarantined:,}",
        )
        for (build, stage), last in zip(made, before, strict=False)
    ]
    return table(("build", "began", "rows", "change", "dropped", "quarantined"), rows[-HISTORY:][::-1])


def _when(build: str) -> str:
    began = started(build)
    return f"{began:%Y-%m-%d %H:%M} UTC" if began else ""


def _change(rows: int, last: int | None) -> str:
    return "" if last is None else f"{rows - last:+,}"


def _making(manifest: Manifest) -> Iterable[tuple[str, str]]:
    """Yield the facts of a table, name and value."""
    model = manifest.key_fields.get("model") or {}
    yield from ((name, text(model[name])) for name in MODEL_FIELDS if model.get(name))
    for name, tokens in (("tokens in", manifest.tokens_in), ("tokens out", manifest.tokens_out)):
        if tokens:
            yield name, f"{tokens:,}"
    yield "seconds", f"{manifest.seconds:,.1f}"
    yield "parts", f"{len(manifest.parts):,}, {sum(part.seconds for part in manifest.parts):,.1f} seconds of work"
    if manifest.work:
        yield from _work(manifest.work, manifest.load_seconds)
    yield from ((text(name), f"{figure:,.6g}") for name, figure in manifest.metrics.items())
    yield "key", f"`{manifest.key}`"
    yield "content", f"`{manifest.content}`"
    yield "build", text(manifest.build)
    yield "published", text(manifest.created)


def _work(work: Work, load_seconds: float) -> Iterator[tuple[str, str]]:
    """Yield how the parts were made: rates over the wall time of all actors together, loads, memory."""
    loads = f"{work.loads:,}, {load_seconds:,.1f} seconds added up over the actors"
    facts = [
        ("model loads", work.loads, loads),
        ("first part after", work.first_part_seconds, f"{work.first_part_seconds:,.1f} seconds"),
        ("tokens read a second", work.tokens_in, f"{work.tokens_in_per_second:,.0f}"),
        ("tokens written a second", work.tokens_out, f"{work.tokens_out_per_second:,.0f}"),
        ("batch occupancy", work.occupancy, f"{work.occupancy or 0:.0%}"),
        ("prompt tokens from the prefix cache", work.cached, f"{work.cached or 0:.0%}"),
        *((name, work.usage.get(name), f"{work.usage.get(name, 0):,.6g}") for name in ("requests", "retries", "cost")),
        ("host memory of an actor", work.host_bytes, f"{work.host_bytes / GIGABYTE:,.2f} GB"),
        ("GPU memory of an actor", work.device_bytes, f"{work.device_bytes / GIGABYTE:,.2f} GB"),
    ]
    yield from ((name, shown) for name, known, shown in facts if known)


def _figures(manifest: Manifest | None) -> tuple[str, ...]:
    if manifest is None:
        return ("",) * 5
    counts = (manifest.attempts, *(manifest.count(kind) for kind in ("rows", "dropped", "quarantined")))
    return *(f"{count:,}" for count in counts), f"{manifest.seconds:,.1f}"


def _page(*blocks: str) -> str:
    return "\n\n".join(blocks) + "\n"
