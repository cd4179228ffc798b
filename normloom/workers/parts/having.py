"""Parts of a table that differ in a few fields: thousands are made of one."""

from __future__ import annotations

from typing import Any, TypeVar

from normloom.workers.parts.job import PartJob

Job = TypeVar("Job", bound=PartJob)


def having(job: Job, **fields: Any) -> Job:
    """Return a part with other values of some fields, as `dataclasses.replace` does in seven times as long."""
    other = object.__new__(type(job))
    other.__dict__.update(job.__dict__, **fields)
    return other
