"""SIGKILLs at random moments, the fewer so that it takes minutes; docs/durability.md has a run with thirty.

`python tests/kills.py` takes any number, and a real model with `--profile local`.
"""

from __future__ import annotations

from pathlib import Path

from kills import scripted_builder, survive

KILLS = {"flow": 2, "actor": 1, "raylet": 1}


def test_builds_survive_kills_of_every_kind(tmp_path: Path) -> None:
    with scripted_builder(tmp_path) as builder:
        report = survive(builder, tmp_path, KILLS)
    assert report.kills == KILLS
    assert report.other_contents == []  # every table is that of a build that was left alone
    assert report.parts_kept > 0
    assert report.parts_redone == 0
    assert report.reads > 0
    assert report.bad_reads == []
