"""Checkpoints that count only if they are whole.

transformers writes a checkpoint in place, file by file: one that a kill cut short looks like any other. So each gets,
last, a list of its files with their digests, put there by rename; one without it, or whose files differ, is removed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path

LIST = "whole.json"
PREFIX = "checkpoint-"

log = logging.getLogger("normloom")


def seal(checkpoint: Path) -> None:
    """Say that a checkpoint is whole."""
    unnamed = checkpoint / f"{LIST}.new"
    unnamed.write_text(json.dumps(_digests(checkpoint), sort_keys=True), encoding="utf-8")
    unnamed.replace(checkpoint / LIST)


def newest(folder: Path) -> Path | None:
    """Return the newest checkpoint of a folder that is whole; those that are not are removed."""
    found = sorted(folder.glob(f"{PREFIX}*"), key=lambda path: int(path.name.removeprefix(PREFIX)), reverse=True)
    whole = None
    for checkpoint in found:
        if not _is_whole(checkpoint):
            log.warning("checkpoint %s was cut short and is removed", checkpoint.name)
            shutil.rmtree(checkpoint)
        elif whole is None:
            whole = checkpoint
    return whole


def _is_whole(checkpoint: Path) -> bool:
    try:
        listed = json.loads((checkpoint / LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(listed == _digests(checkpoint))


def _digests(checkpoint: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and not path.name.startswith(LIST):
            with path.open("rb") as file:
                digests[path.relative_to(checkpoint).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
