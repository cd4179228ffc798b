"""What Prefect and its client log, kept out of the terminal of a build."""

from __future__ import annotations

import logging
import os

from normloom.prefect.server import CONSOLE_LEVEL


def quiet_libraries() -> None:
    """Keep what libraries log from breaking into progress bars; Prefect's server still gets it all.

    A server that is gone is reported once, by us: what Prefect says of each event and log line that it cannot send is
    left out.
    """
    os.environ.setdefault(CONSOLE_LEVEL, "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")
    logging.raiseExceptions = False
    os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
    for name in ("httpx", "httpx2"):  # a line for each request
        logging.getLogger(name).setLevel(logging.ERROR)
