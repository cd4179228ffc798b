"""Checks of the study, as METHODS names them: what each asks, what was found, whether it passed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.run.checks.own import worked
from normloom.schemas.media.modality_tables import IMAGE, SHARED, TEXT
from normloom.schemas.training import preference_tables
from normloom.steps.step import step
from normloom.tasks.preferences.checks import checked, checks_output

_SHARE = 0.01  # by which a measured share may miss the one that was asked for


@step(makes=preference_tables.CHECKED, name="checks", fan_out=free("one row for each check"))
def check_study(rows: pl.DataFrame, scenarios: pl.DataFrame, fits: pl.DataFrame, *vectors: pl.DataFrame) -> Output:
    """Return the checks: both classes in each fold (C2), templates in one fold (C3), weights that changed and a loss
    that fell (C4), one digest of the shared block, vectors without constant columns (C12), scenarios nested.
    """
    return checks_output(
        iter([*_items(rows), *_scenarios(scenarios, rows.height), *_fits(fits), *check_vectors(vectors)])
    )


def _items(items: pl.DataFrame) -> Iterator[dict[str, object]]:
    both = items.group_by("fold").agg(both=pl.col("label").min() != pl.col("label").max())["both"]
    yield checked(
        "C2",
        "items",
        "each fold has both classes",
        found=f"{both.sum()} of {len(both)} folds",
        passed=both.all(),
    )
    for column in ("template", "meme_id"):
        spread = items.group_by(column).agg(pl.col("fold").n_unique()).filter(pl.col("fold") > 1).height
        yield checked("C3", column, f"each {column} is in one fold", found=f"{spread} in several", passed=not spread)


def _scenarios(scenarios: pl.DataFrame, items: int) -> Iterator[dict[str, object]]:
    for modality in (TEXT, IMAGE):
        some = scenarios.filter(missing=modality)
        kept = some.group_by("scenario_id", "present").agg(
            pl.col("item_id").filter(pl.col(f"{modality}_of").is_not_null())
        )
        sets: list[tuple[float, set[str]]] = [
            (share, set(names)) for _, share, names in kept.sort("present").iter_rows()
        ]
        nested = all(one <= other for (_, one), (_, other) in itertools.pairwise(sets))
        off = max(abs(len(names) / items - share) for share, names in sets)
        yield checked(
            "nested",
            modality,
            f"what has its {modality} at a share has it at each larger one",
            found=f"{len(sets)} shares, off by at most {100 * off:.2f} points",
            passed=nested and off <= _SHARE,
        )
    nothing = scenarios.filter(pl.col("text_of").is_null() & pl.col("image_of").is_null()).height
    yield checked(
        "present",
        "scenarios",
        "each item has at least one modality",
        found=f"{nothing} have none",
        passed=not nothing,
    )


def _fits(fits: pl.DataFrame) -> Iterator[dict[str, object]]:
    for (network,), curve in fits.group_by("network", maintain_order=True):
        passed, found = worked(curve.lazy(), column="loss", step="epoch", weights="weights", by=("fold",))
        yield checked("C4", str(network), "weights changed and the loss fell in each fold", found=found, passed=passed)
    shared = fits.filter(network=SHARED)
    alike = (shared["text_block"] == shared["image_block"]).sum()
    yield checked(
        "shared",
        SHARED,
        "text and image pass through one block, the same weights",
        found=f"{alike} of {shared.height} digests agree",
        passed=alike == shared.height,
    )


def check_vectors(vectors: tuple[pl.DataFrame, ...]) -> Iterator[dict[str, object]]:
    """Yield a check for each table of vectors: one width, no constant column (C12)."""
    for table in vectors:
        encoded = table.select(pl.format("{} by {}", "modality", "encoder")).item(0, 0)
        width = table["vector"].list.len().n_unique()
        numbers = table.select("item_id", pl.col("vector").list.to_array(len(table["vector"][0])).arr.to_struct())
        spread = numbers.unnest("vector").select(pl.exclude("item_id").n_unique()).row(0)
        constant = sum(count == 1 for count in spread)
        yield checked(
            "C12",
            str(encoded),
            "vectors of one width without a constant column",
            found=f"{len(spread)} wide, {constant} constant",
            passed=width == 1 and not constant,
        )
