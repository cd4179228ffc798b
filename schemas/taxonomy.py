"""Taxonomies: the labels of one dimension, read from a CSV file that says what each label means."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from normloom.core.errors import ConfigError

BUILTIN = Path(__file__).parent / "taxonomies"
DIMENSIONS = ("safety", "value", "cultural")
COLUMNS = ("id", "name", "group", "definition")
MIN_LABELS = 2  # with fewer there is nothing to tell apart


class Label(BaseModel):
    """One class of a taxonomy. `definition` is read by models: as a question's gloss and as text to embed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    group: str = Field(min_length=1)
    definition: str = Field(min_length=1)


class Taxonomy(BaseModel):
    """The labels of one dimension, in the order of their file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimension: str = Field(min_length=1)
    labels: tuple[Label, ...] = Field(min_length=MIN_LABELS)

    def label(self, key: str) -> Label:
        """Return the label with this id or name."""
        for label in self.labels:
            if key in {label.id, label.name}:
                return label
        known = [text for label in self.labels for text in (label.id, label.name)]
        close = difflib.get_close_matches(key, known, n=3)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"use a label such as {known[0]!r}."
        raise ConfigError(f"{key!r} is not an id or name of the {len(self.labels)} {self.dimension} labels; {hint}")


def load_taxonomy(path: Path) -> Taxonomy:
    """Return the taxonomy of a CSV file; the file's name is its dimension."""
    dimension = path.stem
    labels: list[Label] = []
    taken: dict[tuple[str, str], int] = {}
    for line, row in read_rows(path, COLUMNS):
        for column in COLUMNS:
            if not row[column]:
                raise ConfigError(f"{path}, line {line}, column {column}: expected text, found none; fill it in.")
        if not row["id"].startswith(f"{dimension}/") or row["id"] == f"{dimension}/":
            raise ConfigError(
                f"{path}, line {line}, column id: expected {dimension + '/'!r} and a slug, found {row['id']!r}; "
                "ids begin with the dimension, which is the file's name."
            )
        for column in ("id", "name"):
            first = taken.setdefault((column, row[column]), line)
            if first != line:
                raise ConfigError(
                    f"{path}, line {line}, column {column}: {row[column]!r} is already in line {first}; "
                    "expected each label once, so rename or remove one of the two."
                )
        labels.append(Label(**row))
    if len(labels) < MIN_LABELS:
        raise ConfigError(f"{path}: expected at least {MIN_LABELS} labels, found {len(labels)}; add a line for each.")
    return Taxonomy(dimension=dimension, labels=tuple(labels))


def load_taxonomies(folder: Path, dimensions: Sequence[str]) -> tuple[Taxonomy, ...]:
    """Return the taxonomies of these dimensions in a folder; a file is read again only when it has changed."""
    paths = [folder / f"{dimension}.csv" for dimension in dimensions]
    return tuple(_as_it_is(path, path.stat().st_mtime_ns) if path.is_file() else load_taxonomy(path) for path in paths)


@lru_cache(32)
def _as_it_is(path: Path, changed_ns: int) -> Taxonomy:  # noqa: ARG001  # part of the cache's key
    return load_taxonomy(path)


@cache
def builtin_taxonomies() -> tuple[Taxonomy, ...]:
    """Return the taxonomies that come with Normloom: safety, value and cultural."""
    return tuple(load_taxonomy(BUILTIN / f"{dimension}.csv") for dimension in DIMENSIONS)


def read_rows(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a CSV file that has exactly these columns, each with the line it ends on."""
    wanted = ",".join(columns)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if tuple(header) != columns:
                found = ",".join(header) or "nothing"
                raise ConfigError(f"{path}, line 1: expected the columns {wanted}, found {found}; correct the header.")
            rows = []
            for cells in reader:
                if len(cells) != len(columns):
                    raise ConfigError(
                        f"{path}, line {reader.line_num}: expected {len(columns)} cells ({wanted}), "
                        f"found {len(cells)}; put a cell that holds a comma in double quotes."
                    )
                stripped = (cell.strip() for cell in cells)
                rows.append((reader.line_num, dict(zip(columns, stripped, strict=True))))
            return rows
    except OSError as error:
        raise ConfigError(f"{path}: expected a CSV file with the columns {wanted}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        fault = f"{error.reason} at byte {error.start}"
        raise ConfigError(f"{path}: expected UTF-8 text, found {fault}; save it as UTF-8.") from error
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.line_num}: {error}; check the double quotes.") from error
