"""Progress reports of a running build."""

from __future__ import annotations

import logging
from typing import Protocol

from normloom.core.outlook import Outlook
from normloom.core.table import Manifest, PartRecord

PROGRESS = "normloom.progress"  # the logger of LogProgress

log = logging.getLogger(PROGRESS)


class Progress(Protocol):
    """Receives the life of each stage; called from several threads."""

    def begin(self, stage: str, *, total: int, done: int) -> None:
        """Say that a stage starts, with its number of input rows and how many an earlier build has done."""
        ...

    def note(self, stage: str, text: str) -> None:
        """Say what the stage is at."""
        ...

    def advance(self, stage: str, part: PartRecord) -> None:
        """Say that a part is committed."""
        ...

    def within(self, stage: str, part: int, rows: int) -> None:
        """Say how many rows of a part that is not done yet are done."""
        ...

    def end(self, manifest: Manifest, *, reused: bool) -> None:
        """Say that a table is published, or was already."""
        ...

    def whole(self, outlook: Outlook) -> None:
        """Say how far the whole build is."""
        ...


class LogProgress:
    """Progress as log records, for unattended runs."""

    _tables = 0  # that were done when it was last said how far the build is

    def begin(self, stage: str, *, total: int, done: int) -> None:
        """Log the start."""
        rows = f"{total} rows" if total else "starts"  # a source has no rows yet
        log.info("%s: %s%s", stage, rows, f", {done} of them done before" if done else "")

    def note(self, stage: str, text: str) -> None:
        """Log the note."""
        log.info("%s: %s", stage, text)

    def advance(self, stage: str, part: PartRecord) -> None:
        """Log the part."""
        log.debug("%s: part %d, rows %d to %d, %.1f s", stage, part.index, part.start, part.stop, part.seconds)

    def within(self, stage: str, part: int, rows: int) -> None:
        """Log nothing: a log is read for what is done."""

    def end(self, manifest: Manifest, *, reused: bool) -> None:
        """Log the account of rows."""
        log.info(
            "%s: %s %d rows, %d dropped, %d quarantined, key %s",
            manifest.stage,
            "reused" if reused else "published",
            manifest.count("rows"),
            manifest.count("dropped"),
            manifest.count("quarantined"),
            manifest.key,
        )

    def whole(self, outlook: Outlook) -> None:
        """Log it each time that a table is done, but for the last."""
        if self._tables < outlook.tables < outlook.of:
            log.info("%s", outlook)
        self._tables = outlook.tables
