"""Prompts with reference labels: half of them calibrate labels by embedding, half measure them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from normloom.errors import ConfigError
from schemas.taxonomy import Taxonomy, builtin_taxonomies, read_rows

BUILTIN = Path(__file__).parent / "builtin.csv"
USES = ("calibrate", "measure")


def load_builtin_prompts() -> pl.DataFrame:
    """Return the prompts that come with Normloom, labelled in the built-in taxonomies."""
    return load_prompts(BUILTIN, builtin_taxonomies())


def load_prompts(path: Path, taxonomies: tuple[Taxonomy, ...]) -> pl.DataFrame:
    """Return `prompt`, the label ids of each dimension as a list column, and `use` of a CSV file."""
    dimensions = tuple(taxonomy.dimension for taxonomy in taxonomies)
    first_lines: dict[str, int] = {}
    rows = []
    for line, row in read_rows(path, ("prompt", *dimensions, "use")):
        if not row["prompt"]:
            raise ConfigError(f"{path}, line {line}, column prompt: expected text, found none; fill it in.")
        first = first_lines.setdefault(row["prompt"], line)
        if first != line:
            raise ConfigError(f"{path}, line {line}, column prompt: the same text stands in line {first}; remove one.")
        if row["use"] not in USES:
            raise ConfigError(
                f"{path}, line {line}, column use: expected {' or '.join(USES)}, found {row['use']!r}; choose one."
            )
        labels = {
            taxonomy.dimension: _ids(row[taxonomy.dimension], taxonomy, f"{path}, line {line}")
            for taxonomy in taxonomies
        }
        rows.append({"prompt": row["prompt"], **labels, "use": row["use"]})
    ids = dict.fromkeys(dimensions, pl.List(pl.String))
    return pl.DataFrame(rows, schema={"prompt": pl.String, **ids, "use": pl.String})


def _ids(cell: str, taxonomy: Taxonomy, place: str) -> list[str]:
    """Return the label ids of a cell, which separates them by semicolons."""
    place = f"{place}, column {taxonomy.dimension}"
    ids = [part.strip() for part in cell.split(";")] if cell else []
    if len(set(ids)) < len(ids):
        raise ConfigError(f"{place}: a label stands there twice in {cell!r}; name each once.")
    known = {label.id for label in taxonomy.labels}
    for label_id in ids:
        if label_id in known:
            continue
        try:
            label = taxonomy.label(label_id)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from error
        raise ConfigError(f"{place}: expected a label id, found the name {label_id!r}; write {label.id!r}.")
    return ids
