"""`normloom verify` of a flow in a file, and of all systems of a store at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prefect_home import Prefect
from typer.testing import CliRunner

from normloom.cli.app import app
from normloom.cli.commands.keeping.verify import _show, verify
from normloom.core.errors import UsageError
from normloom.run.reproduce import Remade, Sample
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, words_stage

FLOW = """
import polars as pl
import normloom as nl

MODEL = nl.ModelSpec(engine="scripted", model="m")

@nl.step(makes={"word": pl.String, "polite": pl.Float64}, fan_out=nl.each(), part_rows=2)
def tone(rows: pl.DataFrame, model: nl.LanguageModel) -> pl.DataFrame:
    return rows.with_columns(polite=nl.yes(model, "Is it polite?", rows["word"]))

def flow() -> nl.Stage:
    return tone(nl.table([{"word": word} for word in "abcdef"]), MODEL)
"""


@pytest.fixture
def store(tmp_path: Path, shared_prefect: Prefect) -> Store:
    file = tmp_path / "tones.py"
    file.write_text(FLOW)
    store = Store(tmp_path / "store")
    command = ["build", str(file), "--store", str(store.root), "--json", "--set", "resources.actors=0"]
    with shared_prefect.used():
        done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    built(store, echo_stage(words_stage("a", "b")), build=build_id(1))
    return store


def test_a_flow_in_a_file_is_sampled_and_repaired(store: Store, tmp_path: Path, shared_prefect: Prefect) -> None:
    def verified(*arguments: str) -> tuple[int, dict[str, Any]]:
        with shared_prefect.used():
            result = CliRunner().invoke(app, ["verify", *arguments, "--store", str(store.root), "--json"])
        return result.exit_code, json.loads(result.stdout.splitlines()[-1])

    file = str(tmp_path / "tones.py")
    code, found = verified(file, "--sample", "2")
    assert (code, found["damaged"]) == (0, [])
    assert [(one["promise"], one["same"]) for one in found["sample"]] == [("bit-equal", True)] * 2
    with shared_prefect.used():
        shown = CliRunner().invoke(app, ["verify", file, "--sample", "1", "--store", str(store.root)])
    assert "Made 1 part again; 1 came out as promised." in shown.stdout
    code, found = verified("--sample", "9")  # of the whole store: the file is in the lock; the other has no command
    assert code == 0
    assert {one["stage"] for one in found["sample"]} == {"tones/table", "tones/tone"}
    assert "toy has none; give the file of its flow" in found["left_out"]["toy"]

    table = store.current("tones", "tone")
    assert table
    damaged = store.table_directory(table.ref) / table.parts[1].files["rows"].name
    intact = damaged.read_bytes()
    damaged.write_bytes(intact[:-1] + b"x")
    assert verified()[0] == 1
    code, found = verified("--repair")
    assert (code, [(one["stage"], one["part"]) for one in found["damaged"]]) == (0, [("tone", 1)])
    assert verified()[1]["damaged"] == []
    again = Store(store.root).current("tones", "tone")
    assert again
    assert again.content == table.content
    assert again.work
    assert again.work.parts == 1
    damaged = store.table_directory(again.ref) / again.parts[1].files["rows"].name
    damaged.write_bytes(intact[:-1] + b"x")
    with shared_prefect.used():
        shown = CliRunner().invoke(app, ["verify", "tones", "--repair", "--store", str(store.root)])
    assert shown.stdout.splitlines()[-1] == "1 damaged, rebuilt."


def test_a_system_without_tables_is_refused(tmp_path: Path) -> None:
    built(Store(tmp_path), echo_stage(words_stage("a")), build=build_id(1))
    with pytest.raises(UsageError, match=r"unknown system 'savacu' in .*; available: toy"):
        verify("savacu", store=tmp_path)


def test_a_sample_is_told_part_by_part(capsys: pytest.CaptureFixture[str]) -> None:
    parts = [
        Remade(stage="judge", part=part, promise="bit-equal", found=found, same=found == "equal")
        for part, found in enumerate(("equal", "3 of 9 rows differ"))
    ]
    _show(Sample(remade=parts, left_out={"train": "it is a product"}))
    assert capsys.readouterr().out.splitlines() == [
        "same judge, part 0: equal (promised: bit-equal)",
        "differs judge, part 1: 3 of 9 rows differ (promised: bit-equal)",
        "left out train: it is a product",
        "Made 2 parts again; 1 came out as promised.",
    ]
