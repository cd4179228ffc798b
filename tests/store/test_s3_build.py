"""Commands on a store in object storage: a build killed and resumed, what reads it in place, a row taken back."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from prefect_home import Prefect
from s3_server import S3Server
from typer.testing import CliRunner

import normloom as nl
from normloom.cli.app import app
from normloom.cli.commands.running.serve import serve
from normloom.core.errors import StoreError, UsageError
from normloom.core.machine.object_path import ObjectPath, fetched, fetched_to, place_of
from normloom.history.removal.forget import ask, forget
from normloom.history.removal.purge import purge
from normloom.prefect.notifications.watch import look
from normloom.settings.settings import stages_for
from normloom.store.latest import released_key
from normloom.store.store import Store
from normloom.testing import made
from normloom.testing.builds import build_id, built

FLOW = """
import polars as pl
import normloom as nl

PROMPTS = [{"prompt": f"How do I write letter number {number}?"} for number in range(12)]
MODEL = nl.ModelSpec(engine="scripted", model="m", options={"latency_s": 0.2})


@nl.step(makes={"prompt": pl.String, "polite": pl.Float64}, fan_out=nl.each(), part_rows=1)
def tone(rows: pl.DataFrame, model: nl.LanguageModel) -> pl.DataFrame:
    return rows.with_columns(polite=nl.yes(model, "Is it polite?", rows["prompt"]))


def flow() -> nl.Stage:
    return tone(nl.table(PROMPTS, name="prompts"), MODEL)
"""
SECRET = "Ada lives in 7 Mill Lane, Ely"
PROMPTS = [SECRET, *(f"How do I write letter number {number}?" for number in range(3))]


def test_a_build_that_is_killed_is_resumed_to_the_content_that_it_has_on_a_disk(
    place: str, tmp_path: Path, shared_prefect: Prefect
) -> None:
    file = tmp_path / "polite.py"
    file.write_text(FLOW)
    command = ["build", str(file), "--json", "--set", "resources.actors=0", "--store"]
    run = CliRunner()

    def asked(*arguments: str) -> str:
        result = run.invoke(app, [*arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    with shared_prefect.used():
        parts = place_of(place) / "polite" / "tone"
        with subprocess.Popen([sys.executable, "-m", "normloom", *command, place], stdout=subprocess.DEVNULL) as victim:
            while not (kept := [path.read_bytes() for path in parts.glob("*/part-*.json")]):
                assert victim.poll() is None
                time.sleep(0.1)
            victim.kill()
        assert not list(parts.glob("*/manifest.json"))
        asked(*command, place)
    disk = Store(tmp_path / "store")
    ends = stages_for(str(file), profile="local", assignments=[], store=disk).ends
    on_disk = {stage: table.content for stage, table in made("polite", ends, disk).items()}
    assert {table.stage: table.content for table in Store(place).newest("polite")} == on_disk
    tone = Store(place).current("polite", "tone")
    assert tone
    assert len({part.files["rows"].name.split("-")[2] for part in tone.parts}) == 2, len(kept)  # of two writers
    shown = asked("query", "SELECT count(*) AS n FROM polite_tone WHERE polite >= 0", "--store", place, "--json")
    assert json.loads(shown) == [{"n": 12}]
    key = (place_of(place) / "polite" / "latest").read_text()
    assert pl.read_parquet(f"{place}/polite/{key}/*.parquet").height == 12
    assert json.loads(asked("verify", "--store", place, "--json"))["damaged"] == []


@nl.step(makes={"prompt": pl.String, "kind": pl.String}, part_rows=2, fan_out=nl.each())
def letters(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(kind=pl.lit("letter"))


@nl.step(makes={"loss": pl.Float64}, files="weights")
def learn(rows: pl.DataFrame, run: nl.Run) -> nl.Output:
    (run.files / "weights.txt").write_text("|".join(rows["prompt"]))
    curve = pl.DataFrame(
        {"loss": [0.5], "content": ["0"], "parents": [[]]}, schema_overrides={"parents": pl.List(pl.String)}
    )
    return nl.Output(rows=curve, attempts=1)


def flow() -> list[nl.Stage]:
    return [learn(letters(nl.table([{"prompt": prompt} for prompt in PROMPTS])))]


def test_a_row_taken_back_is_in_no_object_after_a_purge(
    server: S3Server, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORMLOOM_CACHE", str(tmp_path))
    store = Store(place)
    built(store, *flow(), build=build_id(1))
    learnt, source = store.current("toy", "learn"), store.current("toy", "table")
    assert learnt
    assert source
    model = store.folder(learnt.ref)
    assert SECRET in (fetched(model) / "weights.txt").read_text()
    row = store.scan(source.ref).filter(prompt=SECRET).collect()["row_id"].item()
    asked = ask(store, [row])
    assert any(place.startswith("versions of removed objects") for place in asked.beyond)
    forget(store, asked, reason="withdrawn")
    with pytest.raises(StoreError, match="run normloom build toy first"):
        purge(store)
    again = made("toy", flow(), store)
    assert again["letters"].work
    assert (again["letters"].work.parts, len(again["letters"].parts)) == (1, 2)
    (store.root / "toy" / "builds" / "failed.json").write_text(json.dumps({"error": f"cannot read: {SECRET}"}))
    purged = purge(store)
    assert purged.found == []
    assert len(purged.removed) == 4
    assert all(removed.startswith("toy/") for removed in purged.removed)
    assert released_key(store, "toy") is None  # the release was one of the tables; the next build shows its own
    assert isinstance(model, ObjectPath)
    assert not fetched_to(model).exists()
    prefix = f"{place.removeprefix(f's3://{server.bucket}/')}/"
    names = [name for name in server.names() if name.startswith(prefix)]
    assert [name for name in names if b"Mill Lane" in server.read(name)] == []
    assert not [name for name in names if f"/{learnt.key}/" in name]
    assert purge(store).removed == []


def test_a_stale_release_is_told_once(place: str, shared_prefect: Prefect) -> None:
    store = Store(place)
    built(store, *flow(), build=build_id(1), fresh_hours=1.0)
    later = datetime.now(UTC) + timedelta(hours=2)
    with shared_prefect.used():
        assert look(store, later) == ["toy"]
        assert look(Store(place), later) == []


def test_a_store_in_object_storage_can_be_served(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORMLOOM_CACHE", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port}"):  # all that comes before it has been done
            serve(port=port, store=Path(place))
    assert Store(place).home.is_dir()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UsageError, match="check the bucket and the AWS_ variables"):
        serve(store=Path(place))
