"""The progress of a build in Prefect's UI: an artifact of its flow run that is kept up to date."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

from normloom.core.outlook import Forecast
from normloom.prefect.pages.artifact import artifact_key
from normloom.prefect.pages.markdown import table, text
from normloom.prefect.reach import ServerReach, few_tries

EVERY_SECONDS = 5.0
LAST_SECONDS = 5.0  # that the end of a build waits for the last figures to be sent

log = logging.getLogger(__name__)


@contextmanager
def progress_page(system: str, forecast: Forecast, reach: ServerReach) -> Iterator[None]:
    """Tell how far the flow run that is under way is, in a thread: a server that is away delays nothing."""
    ended = threading.Event()
    here = copy_context()  # the run, and the server that it is reported to
    teller = threading.Thread(
        target=here.run,
        args=(_tell, f"{artifact_key(system)}-build-progress", forecast, reach, ended),
        name="progress-page",
    )
    teller.daemon = True
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join(LAST_SECONDS)


def description(forecast: Forecast, *, ended: bool = False) -> str:
    """Return how far a build is, or was when it ended, as markdown."""
    outlook = forecast.outlook()
    if ended and outlook.tables < outlook.of:
        return f"ended with {outlook.tables} of {outlook.of} tables, {outlook.share:.0%} of the work"
    rows = [(text(stage), f"{done:,} of {total:,}") for stage, done, total in forecast.at_work()]
    return "\n\n".join([str(outlook), *([table(("at work", "rows"), rows)] if rows else [])])


def _tell(key: str, forecast: Forecast, reach: ServerReach, ended: threading.Event) -> None:
    from httpx import HTTPStatusError, RequestError
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    artifact: Any = None  # its id
    told = ""
    last = False
    while not last:
        last = ended.is_set()
        now, percent = description(forecast, ended=last), round(100 * forecast.outlook().share)
        if now != told and reach.worth_trying():
            try:
                with few_tries(1):
                    if artifact is None:
                        artifact = create_progress_artifact(percent, key=key, description=now)
                    else:
                        update_progress_artifact(artifact, percent, description=now)
                told = now
            except HTTPStatusError as error:
                log.warning("the progress of the build is not in Prefect's UI: %s", error)
            except RequestError as error:
                reach.lost(error)
            else:
                reach.back()
        if not last:
            ended.wait(EVERY_SECONDS)
