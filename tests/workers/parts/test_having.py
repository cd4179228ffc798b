"""A part with other values of some fields is what `dataclasses.replace` makes of it."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

from normloom.core.contract import Contract
from normloom.core.stage import NoArguments, Output
from normloom.workers.parts.having import having
from normloom.workers.parts.job import PartJob, RunJob


def unread(*tables: object) -> Output:
    raise NotImplementedError


def test_other_values_are_in_another_part_of_the_same_kind() -> None:
    job = RunJob(
        system="toy",
        stage="counts",
        function=unread,
        arguments=NoArguments(),
        contract=Contract(columns={}),
        directory=Path("table"),
        writer="w",
        index=0,
        start=0,
        stop=5,
        inputs=((Path("rows"), 5),),
        sides=(),
        product="model",
    )
    other = having(job, index=3, start=5, stop=7, places="here")
    assert other == replace(job, index=3, start=5, stop=7, places="here")
    assert (job.index, job.start, job.stop, job.places, len(other)) == (0, 0, 5, "", 2)
    assert isinstance(other, RunJob)
    copied: PartJob = pickle.loads(pickle.dumps(other))  # as it reaches an actor
    assert copied == other
