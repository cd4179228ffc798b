"""From what a user names to the media of a source: a folder, archives, or a table with a column of them."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from normloom.core.errors import SourceError
from normloom.readers.locate import Located, locate
from normloom.readers.media.decode import SUFFIXES
from normloom.readers.opening import digest_of, open_raw
from normloom.readers.options import ReadOptions
from normloom.readers.read import ARROW, read_source
from normloom.readers.records import one_line

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
COLUMNS = ("image", "audio", "img", "file_name", "path", "file", "bytes")  # where media are, if nobody says
_SHOWN = 5


class LocatedMedia(BaseModel):
    """The media of a source and the digest of their content. Names and places are no part of a key.

    `table` is the table whose `column` holds them: paths below `root`, bytes, or objects of both as in Hugging Face's
    `Image` and `Audio`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(exclude=True)
    form: Literal["folder", "archive", "table"]
    root: Path = Field(exclude=True)
    files: tuple[Path, ...] = Field(exclude=True)
    digest: str
    table: Located | None = None
    column: str | None = None
    outside: bool = False


def locate_media(
    name: str | Path,
    *,
    column: str | None = None,
    root: str | Path | None = None,
    outside: bool = False,
    reading: ReadOptions | None = None,
) -> LocatedMedia:
    """Return the media of a source: a folder (searched to any depth), zip or tar files, or a table.

    `column` of a table defaults to the first of `COLUMNS` that is there; its paths start at the table's folder, or at
    `root`. Paths that lead out of that folder are not followed unless `outside` is true. Raises SourceError.
    """
    path = Path(name)
    if path.is_dir() and column is None and (files := tuple(_inside(path))):
        return LocatedMedia(
            name=str(name),
            form="folder",
            root=path,
            files=files,
            digest=_digest(path, files, outside=outside),
            outside=outside,
        )
    archives = [path] if path.is_file() else sorted(Path(one) for one in glob.glob(str(name)))  # noqa: PTH207  # a pattern as the user wrote it
    if archives and all(str(one).lower().endswith(ARCHIVES) for one in archives):
        return LocatedMedia(
            name=str(name), form="archive", root=archives[0].parent, files=tuple(archives), digest=digest_of(archives)
        )
    return _of_table(locate(name, reading), column, Path(root) if root else None, outside=outside)


def within(root: Path, path: Path) -> bool:
    """Say whether a path stays below a folder, links followed."""
    return path.resolve().is_relative_to(root.resolve())


def _inside(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.suffix.lower() in SUFFIXES and not path.is_dir():
            yield path


def _digest(root: Path, files: tuple[Path, ...], *, outside: bool) -> str:
    """Return the digest of the files' names and bytes; what leads out of the folder is not read unless allowed."""
    told = hashlib.sha256()
    for path in files:
        read = path.is_file() and (outside or within(root, path))
        told.update(f"{path.relative_to(root)}\0{digest_of([path]) if read else ''}\n".encode())
    return told.hexdigest()


def _of_table(table: Located, column: str | None, root: Path | None, *, outside: bool) -> LocatedMedia:
    names = _names(table)
    if column is None:
        column = next((one for one in COLUMNS if one in names), None)
    if column is None or column not in names:
        shown = ", ".join(names[:_SHOWN])
        wanted = f"no column {column!r}" if column else f"none of the columns {', '.join(COLUMNS)}"
        raise SourceError(f"{table.name} has {wanted}: name the one with the media; it has {shown}")
    folder = root or table.files[0].parent
    paths = tuple(_paths(table, column, folder, outside=outside))
    told = hashlib.sha256(table.digest.encode())
    for path in paths:
        told.update(digest_of([path]).encode())
    return LocatedMedia(
        name=table.name,
        form="table",
        root=folder,
        files=table.files,
        digest=told.hexdigest(),
        table=table,
        column=column,
        outside=outside,
    )


def dataset_of(table: Located) -> Any:
    """Return the Arrow data set of a table's files. Raises SourceError for files that cannot be read."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    try:
        return ds.dataset([str(path) for path in table.files], format="parquet" if table.format == "parquet" else "ipc")
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{table.name} cannot be read ({one_line(error)}): check the file") from error


def _names(table: Located) -> list[str]:
    if table.format in ARROW:
        return list(dataset_of(table).schema.names)
    return read_source(table, text_column=None, keep="all").rows.columns[1:]


def _paths(table: Located, column: str, folder: Path, *, outside: bool) -> Iterator[Path]:
    """Yield the files that the table's paths lead to, as far as they are there and may be read."""
    for value in _values(table, column):
        path = folder / value if isinstance(value, str) and value else None
        if path and path.is_file() and (outside or within(folder, path)):
            open_raw(path).close()
            yield path


def _values(table: Located, column: str) -> Iterator[object]:
    """Yield what may be paths: the values of a column, of objects their field `path`; bytes are not read."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    if table.format not in ARROW:
        read = read_source(table, text_column=None, keep=(column,))
        for value in read.text(column) if column in read.mixed else read.rows[column]:
            yield value.get("path") if isinstance(value, dict) else value
        return
    data = dataset_of(table)
    kind = data.schema.field(column).type
    if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
        wanted = ds.field(column, "path")
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_struct(kind):
        return
    else:
        wanted = ds.field(column)
    for batch in data.to_batches(columns={"path": wanted}):
        yield from batch.column("path").to_pylist()
