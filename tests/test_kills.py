"""Thirty SIGKILLs at random moments; `python tests/kills.py --profile local ...` does the same with a real model."""

from __future__ import annotations

from pathlib import Path

from kills import scripted_builder, survive

KILLS = {"flow": 16, "actor": 10, "raylet": 4}


def test_builds_survive_thirty_kills(tmp_path: Path) -> None:
    with scripted_builder(tmp_path) as builder:
        report = survive(builder, tmp_path, KILLS)
    assert report.kills == KILLS
    assert report.other_contents == []  # every table is that of a build that was left alone
    assert report.parts_kept > 0
    assert report.parts_redone == 0
    assert report.reads > 0
    assert report.bad_reads == []
