"""Logs as JSON, one object a line, if NORMLOOM_LOGS=json: for what collects the logs of services."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from normloom.core.errors import UsageError
from normloom.core.machine.log_context import about

VARIABLE, JSON, TEXT = "NORMLOOM_LOGS", "json", "text"


def json_wanted() -> bool:
    """Return whether logs are to be JSON; raises UsageError if the variable has another value than json or text."""
    value = os.environ.get(VARIABLE, TEXT)
    if value not in (JSON, TEXT):
        raise UsageError(f"{VARIABLE}={value}: expected {JSON} or {TEXT}")
    return value == JSON


class _Lines(JsonFormatter):
    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        super().add_fields(log_data, record, message_dict)
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data.update(about())


@contextmanager
def json_logs() -> Iterator[None]:
    """Write what this process logs, from INFO on, to standard error as JSON: time, level, logger, message, and system,
    build and stage if there are."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(message)s"))
    root = logging.getLogger()
    ours = logging.getLogger("normloom")
    level, ours_level, propagates = root.level, ours.level, ours.propagate
    root.addHandler(handler)
    root.setLevel(min(level, logging.WARNING) if level else logging.WARNING)
    ours.setLevel(logging.INFO)
    ours.propagate = True
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        ours.setLevel(ours_level)
        ours.propagate = propagates
