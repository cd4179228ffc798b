"""Export releases from Python."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from normloom.api.result import Result
from normloom.exports.export import Exported, Format
from normloom.exports.export import export as write
from normloom.exports.pairs import PreferenceForm
from normloom.exports.push import push as upload
from normloom.exports.push import require_token
from normloom.store.store import Store


def export(  # noqa: PLR0913  # the options of the command
    release: Result | str,
    folder: str | os.PathLike[str],
    *,
    format: Format = "hf",  # noqa: A002  # as the command's option is called
    pairs: PreferenceForm = "conversational",
    tables: Sequence[str] = (),
    version: str | None = None,
    overwrite: bool = False,
    push: str | None = None,
    private: bool = True,
    store: str | os.PathLike[str] | Store = "store",
) -> Exported:
    """Write a release to a new folder as a data set, and return what was written.

    `release` is a system, for its newest release (or `version`), or the `Result` of a build. `format` is "hf",
    "trl" (with `pairs` "conversational", "explicit" or "kto"), "jsonl", "csv" or "croissant". `tables` names released
    tables. `push` names a data set repository of the Hugging Face hub; the token is read from HF_TOKEN. Raises
    UsageError if the folder is not an earlier export, or is one and `overwrite` is not set.
    """
    if push:
        require_token()
    if isinstance(release, Result):
        where, system = release.store, release.system
        version = version or (release.built.release.version if release.built.release else None)
    else:
        where, system = store if isinstance(store, Store) else Store(Path(store)), release
    made = write(
        where,
        system,
        Path(folder),
        format=format,
        pairs=pairs,
        tables=tables,
        version=version,
        overwrite=overwrite,
        repository=push,
    )
    if push:
        upload(where, made, push, private=private)
    return made
