"""SIGKILLs at random moments, the fewer so that it takes minutes; docs/durability.md has a run with thirty.

`python tests/kills.py` takes any number, and a real model with `--profile local`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from kills import scripted_builder, survive
from prefect_home import Prefect

from normloom.lineage.openlineage_ends import open_runs, read_events

KILLS = {"flow": 2, "actor": 1, "raylet": 1}


def test_builds_survive_kills_of_every_kind(shared_prefect: Prefect, tmp_path: Path) -> None:
    report = survive(scripted_builder(tmp_path, shared_prefect), tmp_path, KILLS)
    assert report.kills == KILLS
    assert report.other_contents == []  # every table is that of a build that was left alone
    assert report.parts_kept > 0
    assert report.parts_redone == 0
    assert report.reads > 0
    assert report.bad_reads == []
    [builds] = tmp_path.glob("build-*/savacu/builds")
    events = [*builds.glob("*.openlineage.jsonl")]
    told = {path.name.partition(".")[0] for path in events}
    killed, finished = ({path.stem for path in builds.glob(f"*.{kind}")} for kind in ("json", "yaml"))
    assert len(killed) == KILLS["flow"]
    assert finished <= told <= finished | killed  # one that dies at its start has told nothing
    assert killed & told
    assert [path.name for path in events if open_runs(read_events(path))] == []  # the next build told how they ended
    assert any("died" in line and line.startswith("a process ") for line in run_logs(shared_prefect, tmp_path))


def run_logs(prefect: Prefect, place: Path) -> list[str]:
    """Return the lines in Prefect's database of the runs whose stores are in `place`."""
    lines = "SELECT message FROM log JOIN flow_run ON flow_run.id = flow_run_id WHERE instr(parameters, ?)"
    with closing(sqlite3.connect(prefect.home / "prefect.db")) as database:
        return [message for (message,) in database.execute(lines, [str(place)])]
