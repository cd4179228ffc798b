"""Data sets that Hugging Face's `datasets` wrote with `save_to_disk`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from normloom.core.errors import SourceError
from normloom.readers.options import ReadOptions


def saved_files(folder: Path, reading: ReadOptions) -> tuple[Path, ...]:
    """Return the Arrow files of a saved data set in its own order, of one split if it has any; else nothing.

    Raises SourceError for a split that is not there, or not given if there are several.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = list(map(str, _content(folder / "dataset_dict.json").get("splits", [])))
        chosen = reading.split or (splits[0] if len(splits) == 1 else None)
        if chosen is None:
            raise SourceError(f"{folder} has the splits {', '.join(splits)}: set source.split to one of them")
        if chosen not in splits:
            raise SourceError(f"{folder} has no split {chosen!r}; its splits are {', '.join(splits)}")
        return saved_files(folder / chosen, reading.model_copy(update={"split": None}))
    state = folder / "state.json"
    if not state.is_file() or "_data_files" not in (told := _content(state)):
        return ()
    if told.get("_indices_data_files"):
        raise SourceError(f"{folder} is a selection of another table: save it again after flatten_indices()")
    own = told.get("_split")
    if reading.split not in {None, own} and not reading.splits_by_column:
        raise SourceError(f"{folder} has no split {reading.split!r}; it is {own or 'a data set without splits'}")
    files = tuple(folder / str(file["filename"]) for file in told["_data_files"])
    if absent := [file.name for file in files if not file.is_file()]:
        raise SourceError(f"{folder} lacks its file {absent[0]}: fetch the data set again")
    return files


def _content(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise SourceError(f"{path} cannot be read as JSON: save the data set again") from error
