"""`normloom audit`, end to end: it waits for answers, prints corrected figures, and holds bounds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from prefect_home import Prefect

import normloom as nl
from normloom.cli.app import run_command
from normloom.core.errors import UsageError
from normloom.store.store import Store
from normloom.testing.builds import build_id, built

ROWS = 60
ASKED = ["audit", "toy", "--budget", "24", "--verdict", "verdict", "--show", "text", "--of", "bad", "--by", "source"]


def released(store: Store) -> None:
    """Publish verdicts of which every tenth is wrong; a third of the texts is bad."""
    truth = ["bad" if number % 3 == 0 else "good" for number in range(ROWS)]
    said = [{"bad": "good", "good": "bad"}[one] if place % 10 == 4 else one for place, one in enumerate(truth)]
    rows = {"text": [f"{one} text {place}" for place, one in enumerate(truth)], "verdict": said, "source": ["s"] * ROWS}
    built(store, nl.table(pl.DataFrame(rows), name="texts"), build=build_id(1), system="toy")


def test_an_audit_waits_and_then_corrects(
    shared_prefect: Prefect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    released(store)

    def audit(*options: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["normloom", *ASKED, *options, "--store", str(store.root)])
        code = run_command()
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    with shared_prefect.used():
        code, _, said = audit()
        assert code == 3
        assert "24 rows wait for answers: normloom label audit_toy" in said
        again = "normloom audit toy --budget 24 --of bad --verdict verdict --show text --by source --store"
        assert f"to collect: {again} {store.root}" in said
        queue = nl.open_queue("audit_toy", store=store.root)
        for row in queue.next("ada", ROWS):
            queue.record(row, {"truth": row.shown["text"].partition(" ")[0]}, "ada")
        code, shown, _ = audit()
        assert code == 0
        assert "Rows drawn at random would have taken" in shown
        told: dict[str, Any] = json.loads(audit("--json")[1])  # made before: nothing is built
        where = {"metric": "share", "of": "bad", "axis": "prediction-powered", "slice_by": "overall"}
        [share] = [row for row in told["figures"] if where.items() <= row.items()]
        assert share["low"] <= 1 / 3 <= share["high"]
        assert (told["answers"], told["missed"]) == (24, [])
        code, _, said = audit("--at-least", "precision bad 0.99")
        assert code == 1
        assert "precision of bad at least 0.99, lower bound: it is 0." in said


def test_a_system_that_does_not_say_what_is_audited_needs_columns() -> None:
    from normloom.cli.commands.releasing.audit import audit

    with pytest.raises(UsageError, match="toy declares no audit: give --verdict COLUMN"):
        audit("toy")
    with pytest.raises(UsageError, match="no tables in /nonexistent yet"):
        audit("savacu", store=Path("/nonexistent"))
