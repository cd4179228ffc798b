"""Progress in the log of the run in Prefect's UI."""

from __future__ import annotations

import logging
from typing import Any

from normloom.core.outlook import Forecast, Outlook
from normloom.core.progress import Progress
from normloom.core.table import Manifest, PartRecord


class RunProgress:
    """Progress that is also logged by the task run at work, with a forecast."""

    def __init__(self, shown: Progress, forecast: Forecast) -> None:
        self._shown = shown
        self._forecast = forecast

    def begin(self, stage: str, *, total: int, done: int) -> None:
        """Tell the start."""
        self._shown.begin(stage, total=total, done=done)
        self._forecast.begin(stage, total=total, done=done)
        self._shown.whole(self._forecast.outlook())
        rows = f", {total} rows in" if total else ""  # a source has no rows yet
        _tell("%s: starts%s%s", stage, rows, f", {done} of them done before" if done else "")

    def note(self, stage: str, text: str) -> None:
        """Tell the note."""
        self._shown.note(stage, text)
        _tell("%s: %s", stage, text)

    def advance(self, stage: str, part: PartRecord) -> None:
        """Tell the part with its account of rows."""
        self._shown.advance(stage, part)
        self._forecast.advance(stage, part)
        self._shown.whole(self._forecast.outlook())
        rows, dropped, aside = (part.files[kind].rows for kind in ("rows", "dropped", "quarantined"))
        _tell(
            "%s: part %d, rows %d to %d: %d out, %d dropped, %d quarantined, %.1f s",
            *(stage, part.index, part.start, part.stop, rows, dropped, aside, part.seconds),
        )

    def whole(self, outlook: Outlook) -> None:
        """Show it; the run has a page of it."""
        self._shown.whole(outlook)

    def within(self, stage: str, part: int, rows: int) -> None:
        """Show it; the log gets the parts that are done."""
        self._shown.within(stage, part, rows)
        self._forecast.within(stage, part, rows)
        self._shown.whole(self._forecast.outlook())

    def end(self, manifest: Manifest, *, reused: bool) -> None:
        """Tell the table."""
        self._shown.end(manifest, reused=reused)
        self._forecast.end(manifest)
        self._shown.whole(self._forecast.outlook())
        _tell(
            "%s: %s, %d rows, %d dropped, %d quarantined, key %s",
            manifest.stage,
            f"reused from build {manifest.build}" if reused else "published",
            *(manifest.count("rows"), manifest.count("dropped"), manifest.count("quarantined"), manifest.key),
        )


def _tell(message: str, *values: Any) -> None:
    from prefect import get_run_logger

    logger: logging.LoggerAdapter[logging.Logger] = get_run_logger()  # type: ignore[assignment]
    logger.info(message, *values)
