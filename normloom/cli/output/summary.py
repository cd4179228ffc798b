"""The summary of a finished build: as one JSON object for scripts, and as a page for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import polars as pl
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from normloom.cli.output.answers import LACKS, lacks_of, length_warning, scores_of
from normloom.core.rows.text import counted
from normloom.core.table import Manifest, Work
from normloom.exports.origins import rights
from normloom.history.commands import store_option
from normloom.history.losses import losses
from normloom.models.files.locate import has_small
from normloom.report.sections.data.duplicates import chance_warning
from normloom.run.build import BuildResult
from normloom.schemas.tables import FIGURES
from normloom.settings.system import System
from normloom.store.store import Store
from normloom.tasks.duplicates.split import in_order

FIGURES_SHOWN = 40  # of one table; the report has them all
READ_COLUMNS = 2  # of the released table, in the query that the summary suggests
MINUTE = 60


def as_json(result: BuildResult, store: Store) -> dict[str, Any]:
    """Return the build as the object that `--json` prints."""
    return {
        "system": result.system,
        "build": result.build,
        "seconds": round(result.seconds, 3),
        "output": None if result.partial else str(store.table_directory(result.released.ref)),
        "latest": str(result.latest) if result.latest else None,
        "release": _release(result, store),
        "stale": dict(result.stale),
        "lock": str(result.lock),
        "loads": dict(result.loads),
        "reads": {name: str(manifest.ref) for name, manifest in result.reads.items()},
        "spent": _spent(result),
        "losses": [{**asdict(loss), "rows": loss.rows} for loss in losses(result.manifests)],
        "stages": [_stage(manifest, reused=manifest.stage in result.reused) for manifest in result.manifests],
    }


def _stage(manifest: Manifest, *, reused: bool) -> dict[str, Any]:
    return {
        "name": manifest.stage,
        "key": manifest.key,
        "reused": reused,
        "rows_in": manifest.rows_in,
        "attempts": manifest.attempts,
        "rows_out": manifest.count("rows"),
        "dropped": manifest.count("dropped"),
        "quarantined": manifest.count("quarantined"),
        "seconds": round(manifest.seconds, 3),
        "tokens_in": manifest.tokens_in,
        "tokens_out": manifest.tokens_out,
        "metrics": dict(manifest.metrics),
        "scores": scores_of(manifest),
        "endpoint_lacks": lacks_of(manifest),
        "work": None if reused or manifest.work is None else _work(manifest.work, manifest.load_seconds),
        "warnings": [
            *(f"{check.name}: {check.detail}" for check in manifest.checks if not check.passed),
            *filter(None, [chance_warning(manifest), length_warning(manifest)]),
        ],
    }


def _release(result: BuildResult, store: Store) -> dict[str, Any] | None:
    """Return the version that the build released or confirmed, and what the licences of its sources forbid."""
    if result.release is None:
        return None
    found = rights(store, result.release)
    named = [licence or "unknown" for licence in found.licences]
    return {"version": result.release.version, "licences": named, "warnings": found.warnings}


def _spent(result: BuildResult) -> dict[str, Any]:
    """Return this build's usage: requests to hosted models, cost (None without a price), tokens of all models."""
    works = [one.work for one in result.manifests if one.work and one.stage not in result.reused]
    return {
        "requests": int(sum(work.usage.get("requests", 0) for work in works)),
        "tokens_in": sum(work.tokens_in for work in works),
        "tokens_out": sum(work.tokens_out for work in works),
        "cost": result.spent.cost,
        "currency": result.spent.currency,
    }


def _work(work: Work, load_seconds: float) -> dict[str, Any]:
    rates = {"tokens_in_per_second": work.tokens_in_per_second, "tokens_out_per_second": work.tokens_out_per_second}
    return {
        **work.model_dump(mode="json"),
        **{name: round(rate, 3) for name, rate in rates.items()},
        "occupancy": work.occupancy,
        "cached": work.cached,
        "load_seconds": round(load_seconds, 3),
    }


def show(console: Console, result: BuildResult, store: Store, *, system: System, profile: str) -> None:
    """Print the summary of a build."""
    console.print()
    console.rule(
        f"[bold]{system.title}[/] · build {result.build} · profile {escape(profile)} · {_duration(result.seconds)}"
    )
    console.print(_stages(result))
    if len(result.reused) == len(result.manifests):
        console.print("[green]Nothing to do:[/] every table is up to date.\n")
    if result.partial:
        console.print(_left(result))
        return
    own = system.sections(result, store) if system.sections else []
    for section in (*own, *_figures(result, store), *_asides(result)):
        console.print(section)
    console.print(
        Panel(_closing(result, store), title="Where it is", title_align="left", box=box.ROUNDED, expand=False)
    )
    for command in _commands(result, store):  # outside the frame, which would break them
        console.print(f"  {escape(command)}", style="cyan", highlight=False, soft_wrap=True)


def _left(result: BuildResult) -> Text:
    """Print what a partial build leaves stale."""
    if not result.stale:
        return Text("No table is stale.")
    lines = [f"  {stage:<22} {why}" for stage, why in result.stale.items()]
    return Text.assemble(
        ("Stale until they are rebuilt\n", "bold yellow"),
        "\n".join(lines),
        ("\n\nThe same command without --only and --from rebuilds them.", "cyan"),
    )


def _stages(result: BuildResult) -> Table:
    table = Table(title="Rows per stage", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("stage", no_wrap=True)
    for heading in ("in", "tried", "out", "dropped", "quar.", "tokens in", "out", "time"):
        table.add_column(heading, justify="right")
    for manifest in result.manifests:
        reused = manifest.stage in result.reused
        table.add_row(
            manifest.stage,
            *(_number(count) for count in (manifest.rows_in, manifest.attempts)),
            f"[bold]{manifest.count('rows'):,}",
            _number(manifest.count("dropped")),
            _number(manifest.count("quarantined")),
            _number(manifest.tokens_in),
            _number(manifest.tokens_out),
            "[dim]reused" if reused else _duration(manifest.seconds),
        )
    return table


def _figures(result: BuildResult, store: Store) -> Iterator[Table]:
    """Yield the figures over all rows of each table of figures."""
    for manifest in result.manifests:
        if not manifest.key_fields["contract"]["columns"].keys() >= FIGURES.columns.keys():
            continue
        rows = store.scan(manifest.ref).filter(slice_by="overall").sort("metric", "axis", "of").collect()
        if rows.is_empty():  # a sweep has slices only
            continue
        table = Table(title=f"Figures: {manifest.stage}", title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("figure", "of", "axis", "value", "95 %", "rows"):
            table.add_column(heading, justify="right" if heading in {"value", "95 %", "rows"} else "left")
        for row in rows.head(FIGURES_SHOWN).iter_rows(named=True):
            known = row["value"] is not None
            interval = "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
            cells = (f"{row['value']:.3f}" if known else "-", interval if known else escape(row["undefined"]))
            table.add_row(*(escape(row[name]) for name in ("metric", "of", "axis")), *cells, f"{row['rows']:,}")
        if rows.height > FIGURES_SHOWN:
            table.caption = f"and {rows.height - FIGURES_SHOWN} more (view {result.system}_{manifest.stage})"
        yield table


def _asides(result: BuildResult) -> Iterator[Text]:
    """Yield why rows were dropped or quarantined, and warnings, stage by stage."""
    if found := losses(result.manifests):
        yield Text.assemble(("Why rows were left out\n", "bold"), "\n".join(f"  {loss}" for loss in found), "\n")
    for manifest in result.manifests:
        if manifest.count("quarantined"):
            rules = ", ".join(f"{rule} {count}" for rule, count in manifest.quarantined_by.items())
            view = f"{result.system}_{manifest.stage}_quarantined"
            yield Text(f"Quarantine of {manifest.stage}: {rules} (view {view}).", "yellow")
        for warning in filter(None, [chance_warning(manifest), length_warning(manifest)]):
            yield Text(f"{manifest.stage}: {warning}", "yellow")
        if scores := scores_of(manifest):
            yield Text(f"{manifest.stage}: {scores}.")
    lacks = dict.fromkeys(
        (one.key_fields["model"]["model"], lack) for one in result.manifests for lack in lacks_of(one)
    )
    for model, lack in lacks:
        yield Text(f"{model} {LACKS[lack]}.")


def _closing(result: BuildResult, store: Store) -> Text:
    tokens = sum(manifest.tokens_out for manifest in result.manifests if manifest.stage not in result.reused)
    loads = ", ".join(f"{model} {count}x{_loading(result, model)}" for model, count in result.loads.items()) or "none"
    text = Text.assemble(
        ("Released rows  ", "bold"),
        f"{result.latest}/{_splits(result)}\n",
        ("Lock           ", "bold"),
        f"{result.lock}\n",
        ("Model loads    ", "bold"),
        f"{loads}; {counted(tokens, 'token')} written\n",
    )
    if (spent := _spent(result))["requests"]:
        text.append("Spent          ", "bold")
        cost = result.spent
        price = "no price set" if cost.cost is None else f"{cost.cost:,.4f} {cost.currency}"
        text.append(f"{counted(spent['requests'], 'request')} to hosted models, {price}\n")
    for manifest in result.reads.values():
        text.append(f"Started from   {manifest.ref}, {counted(manifest.count('rows'))}\n")
    if release := _release(result, store):
        text.append("Version        ", "bold")
        text.append(f"{release['version']}, licence of the source: {', '.join(release['licences'])}\n")
        for warning in release["warnings"]:
            text.append(f"{warning}\n", "yellow")
    if any(has_small(manifest.key_fields.get("model") or {}) for manifest in result.manifests):
        text.append(
            "A 135M model took part: what it writes, judges and rates is near chance. "
            "This build proves the pipeline; for meaningful figures, use a profile with larger models.\n",
            "italic",
        )
    text.rstrip()
    return text


def _commands(result: BuildResult, store: Store) -> Iterator[str]:
    """Yield commands to run next."""
    option = store_option(store.root)
    yield f"normloom tables {result.system}{option}"
    yield f"normloom report {result.system}{option}"
    yield f"normloom export {result.system} {result.system}-export{option}"
    shown = ", ".join(_readable(store.scan(result.released.ref).collect_schema())) or "*"
    yield f'normloom query "FROM {result.system}_{result.released.stage} SELECT {shown} LIMIT 5"{option}'


def _readable(schema: pl.Schema) -> list[str]:
    """Return the first columns of a table that people read: texts and numbers, no ids."""
    plain = [name for name, kind in schema.items() if not (kind.is_nested() or name.endswith(("_id", "_row")))]
    return plain[:READ_COLUMNS]


def _splits(result: BuildResult) -> str:
    """Name the folders of a release that has any."""
    folders = [path.name for path in result.latest.iterdir() if path.is_dir()] if result.latest else []
    return f" ({', '.join(in_order(folders))})" if folders else ""


def _loading(result: BuildResult, model: str) -> str:
    """Return the loading time of a model: seconds per actor; actors load in parallel."""
    made = [manifest for manifest in result.manifests if manifest.stage not in result.reused]
    mine = [manifest for manifest in made if (manifest.key_fields["model"] or {}).get("model") == model]
    actors = sum(manifest.work.loads for manifest in mine if manifest.work)
    seconds = sum(manifest.load_seconds for manifest in mine)
    return f" ({actors} actor{'' if actors == 1 else 's'}, {_duration(seconds / actors)} each)" if actors else ""


def _number(value: int) -> str:
    return f"{value:,}" if value else "[dim]-"


def _duration(seconds: float) -> str:
    if seconds < MINUTE:
        return f"{seconds:.1f} s"
    return f"{int(seconds // MINUTE)} min {int(seconds % MINUTE):02d} s"
