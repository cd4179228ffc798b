"""Parts of a stage that read chosen rows: `--only 'answer_m where language = "hi"'` makes these and no others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import duckdb

from normloom.core.errors import UsageError
from normloom.store.views import reading, selected
from normloom.workers.parts.job import PartJob, TableFiles

_QUOTED = re.compile(r'"([^"]*)"')


def with_rows(jobs: Sequence[PartJob], files: TableFiles, where: str, *, root: Path, stage: str) -> list[PartJob]:
    """Return the parts that read a row for which a condition in SQL holds, on the columns of what the stage reads.

    A text may be in double quotes, too. Raises UsageError for a condition that cannot be read, or holds for no row.
    """
    if not files:
        raise UsageError(f"--only: stage {stage!r} reads no table, so it has no rows to choose")
    with reading(root, duckdb.connect()) as connection:
        table = selected([path for path, _ in files])
        columns = [name for name, *_ in connection.execute(f"DESCRIBE {table}").fetchall()]
        condition = _QUOTED.sub(lambda text: text[0] if text[1] in columns else _text(text[1]), where)
        numbered = f"SELECT *, row_number() OVER () - 1 AS _position FROM ({table})"  # noqa: S608  # paths of our own
        try:
            found = connection.execute(f"SELECT _position FROM ({numbered}) WHERE ({condition}) ORDER BY 1").fetchall()  # noqa: S608  # the user's own, on their own table
        except duckdb.Error as error:
            why = str(error).splitlines()[0]
            raise UsageError(f"--only {stage} where {where}: {why}; columns: {', '.join(columns)}") from None
    positions = [position for (position,) in found]
    if not positions:
        raise UsageError(f"--only {stage} where {where}: none of {sum(rows for _, rows in files):,} rows match")
    return [job for job in jobs if any(job.start <= at < job.stop for at in positions)]


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
