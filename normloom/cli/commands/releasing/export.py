"""normloom export."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from normloom.cli.common import DEFAULT_STORE, JsonOption, StoreOption, SystemArgument, err, escaped, out
from normloom.core.errors import UsageError
from normloom.core.formats.json_text import json_text

if TYPE_CHECKING:
    from normloom.exports.export import Exported


class Format(StrEnum):
    """What an export is."""

    HF = "hf"
    TRL = "trl"
    JSONL = "jsonl"
    CSV = "csv"
    CROISSANT = "croissant"


class PairsForm(StrEnum):
    """How preferences are written."""

    CONVERSATIONAL = "conversational"
    EXPLICIT = "explicit"
    KTO = "kto"


def export(
    system: SystemArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write; must not exist.")],
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="hf: Parquet with card and Croissant metadata; trl: preferences for TRL; jsonl, csv; "
            "croissant: Parquet and metadata without a card.",
        ),
    ] = Format.HF,
    pairs: Annotated[
        PairsForm | None,
        typer.Option(
            help="With --format trl: conversational (messages), explicit (texts) or kto (labelled completions).",
            show_default="conversational",
        ),
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(
            "--table",
            help="Only this released table; repeatable.",
            show_default="hf and croissant: all, else the release",
        ),
    ] = None,
    version: Annotated[
        str | None, typer.Option("--release", help="A version that normloom releases lists.", show_default="the newest")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in DIR.")] = False,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="REPO",
            help="Also upload to this data set repository of the Hugging Face hub; the token is read from HF_TOKEN.",
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="With --push: create the repository public (default: private).")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    json_: JsonOption = False,
) -> None:
    """Export a release as a data set: files by split, data set card, Croissant metadata, lock and checksums.

    DIR appears once complete. An existing folder is an error; --overwrite replaces an earlier export if nothing in it
    was changed or added. The store records each export.

    Examples:

        normloom export savacu savacu-1.0

        normloom export savacu pairs --format trl --pairs kto

        normloom export savacu savacu-1.1 --push me/savacu
    """
    from normloom.exports.export import export as write
    from normloom.exports.push import push as upload
    from normloom.exports.push import require_token
    from normloom.settings.systems import name_of
    from normloom.store.store import Store

    if pairs is not None and format_ is not Format.TRL:
        raise UsageError(f"--pairs {pairs.value} needs --format trl")
    if public and not push:
        raise UsageError("--public applies to the repository that --push creates: give --push REPO")
    if push:
        require_token()
    where = Store(store)
    made = write(
        where,
        name_of(system),
        folder,
        format=format_.value,
        pairs=(pairs or PairsForm.CONVERSATIONAL).value,
        tables=table or (),
        version=version,
        overwrite=overwrite,
        repository=push,
    )
    url = upload(where, made, push, private=not public) if push else None
    if json_:
        print(json_text(_described(made, url)))
        return
    _show(made, url)


def _show(made: Exported, url: str | None) -> None:
    release = made.release
    out.print(f"[bold]{escaped(release.system)} {release.version}[/], build {release.build}", highlight=False)
    shown = Table(box=None, pad_edge=False)
    for heading in ("table", "split", "rows", "file"):
        shown.add_column(heading, justify="right" if heading == "rows" else "left", no_wrap=True)
    for written in made.tables:
        for file in written.files:
            shown.add_row(escaped(written.shown.name), escaped(file.split), f"{file.rows:,}", escaped(file.path))
    out.print(shown)
    out.print(f"[bold]Folder[/]  {escaped(made.path)}", highlight=False, soft_wrap=True)
    out.print(f"[bold]Licence[/] {escaped(', '.join(one or 'unknown' for one in made.licences))}", highlight=False)
    if url:
        out.print(f"[bold]Pushed[/]  {escaped(url)}", highlight=False, soft_wrap=True)
    for warning in made.warnings:
        err.print(f"[yellow]{escaped(warning)}", highlight=False, soft_wrap=True)


def _described(made: Exported, url: str | None) -> dict[str, Any]:
    return {
        "system": made.release.system,
        "version": made.release.version,
        "build": made.release.build,
        "path": str(made.path),
        "format": made.record.format,
        "export": made.record.export,
        "licences": [one or "unknown" for one in made.licences],
        "warnings": list(made.warnings),
        "pushed": url,
        "tables": [
            {
                "name": written.shown.name,
                "stage": written.shown.ref.stage,
                "key": written.shown.ref.key,
                "rows": written.rows,
                "files": [vars(file) for file in written.files],
            }
            for written in made.tables
        ],
    }
