"""What the summary of a PersoDPO build says besides rows and figures: checks that failed, and shortcuts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from normloom.schemas.training.preference_tables import CHECKED, SHORTCUT_LIMIT
from normloom.store.store import Store
from normloom.tasks.preferences.shortcuts import AUC

if TYPE_CHECKING:
    from normloom.run.build import BuildResult

WARNING = "yellow"


def sections(result: BuildResult, store: Store) -> list[RenderableType]:
    """Return the checks of a build, and a warning for each shortcut that tells chosen from rejected."""
    return [*checks(result, store), *_shortcuts(result, store)]


def checks(result: BuildResult, store: Store) -> list[RenderableType]:
    """Return the checks of a build as a table, nothing if it has none."""
    table = Table(title="Checks", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("check", "of", "asks", "found", ""):
        table.add_column(heading)
    for manifest in result.manifests:
        if manifest.key_fields["contract"]["columns"].keys() >= CHECKED.columns.keys():
            for row in store.scan(manifest.ref).collect().iter_rows(named=True):
                verdict = "passed" if row["passed"] else f"[{WARNING}]failed"
                table.add_row(*(Text(row[name]) for name in ("check", "of", "asks", "found")), verdict)
    return [table] if table.rows else []


def _shortcuts(result: BuildResult, store: Store) -> Iterator[RenderableType]:
    for manifest in result.manifests:
        if manifest.stage == "shortcuts":
            above = store.scan(manifest.ref).filter(metric=AUC).filter(pl.col("value") > SHORTCUT_LIMIT).collect()
            for row in above.iter_rows(named=True):
                yield Text(
                    f"The {row['of']} of a reply alone tells chosen from rejected in {row['axis']} pairs: area under "
                    f"the curve {row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f}), over {SHORTCUT_LIMIT:g}. "
                    "A policy trained on them may learn just that.",
                    WARNING,
                )
