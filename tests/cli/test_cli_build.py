from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from command_line import Command
from hand_made import SCRIPTED_COMMAND
from prefect_home import Prefect, prefect_home
from users_folder import users_folder

import normloom
from normloom.schemas.prompts import MEASURE
from normloom.store.store import Store

STRANGE = (
    "مرحبا، كيف أطبخ الأرز؟",
    "שלום 👩‍👧‍👦 🏳️‍🌈 how are you today?",
    "again and again and again",
    "again and again and again",
)
PACKAGES = str(Path(normloom.__file__).parents[1])
BROKEN = ("", "x" * 100_000, "ring the bell \x07 now")


@dataclass(frozen=True)
class Builds:
    """The same command given twice over a file with odd and broken prompts."""

    store: Path
    arguments: list[str]
    first: dict[str, Any]
    second: dict[str, Any]

    def table(self, stage: str, kind: str = "rows") -> pl.DataFrame:
        store = Store(self.store)
        manifest = store.current("savacu", stage)
        assert manifest is not None
        return store.scan(manifest.ref, kind).collect()  # type: ignore[arg-type]  # one of the three kinds


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Builds:
    place = users_folder(tmp_path_factory.mktemp("builds"))
    prefect_home(place / "prefect")
    texts = [*pl.read_csv(MEASURE)["prompt"].head(30), *STRANGE, *BROKEN]
    (place / "a [1].jsonl").write_text("".join(f"{json.dumps({'ask': text})}\n" for text in texts))
    arguments = [
        "build",
        "savacu",
        "--source",
        "a [1].jsonl",
        "--text-column",
        "ask",
        *SCRIPTED_COMMAND,
        "--set",
        "rounds=1",
        "--set",
        "expand.minimum=1",
    ]
    first, second = run(place, *arguments), run(place, *arguments)
    return Builds(place / "store", arguments, first, second)


@pytest.fixture(autouse=True)
def _later_builds(builds: Builds, shared_prefect: Prefect) -> Iterator[None]:  # noqa: ARG001  # after the first
    """The first build runs in its own process with a private Prefect server; later ones run here, on the shared one."""
    with shared_prefect.used():
        yield


def run(place: Path, *arguments: str) -> Any:
    """Run a command on the store and return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "normloom", *arguments, "--store", str(place / "store"), "--json"],
        cwd=place,
        env={
            **os.environ,
            "PREFECT_HOME": str(place / "prefect"),
            "PYTHONPATH": str(Path(normloom.__file__).parents[1]),
        },
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def told(command: Command, place: Path, *arguments: str) -> Any:
    """Run a command on the store in this process and return the JSON that it prints."""
    command.monkeypatch.chdir(place)
    done = command(*arguments, "--store", str(place / "store"), "--json")
    assert done.code == 0, done.err
    return json.loads(done.out.splitlines()[-1])


def test_a_build_reports_every_stage_as_json(builds: Builds) -> None:
    assert set(builds.first) >= {"system", "build", "stages", "output"}
    counts = ["rows_in", "rows_out", "dropped", "quarantined", "tokens_in", "tokens_out", "attempts"]
    for stage in builds.first["stages"]:
        assert set(stage) >= {"name", "key", "reused", "seconds", *counts}
        assert not stage["reused"]
        assert all(isinstance(stage[name], int) for name in counts)
        assert stage["attempts"] == stage["rows_out"] + stage["dropped"] + stage["quarantined"]
    names = [stage["name"] for stage in builds.first["stages"]]
    assert (names[0], names[-2:]) == ("ingest", ["publish", "coverage"])
    assert list(Path(builds.first["output"]).glob("rows-*.parquet"))


def test_the_same_command_again_reuses_every_stage(builds: Builds) -> None:
    assert all(stage["reused"] for stage in builds.second["stages"])
    assert [stage["key"] for stage in builds.second["stages"]] == [stage["key"] for stage in builds.first["stages"]]
    assert builds.second["output"] == builds.first["output"]
    assert builds.second["build"] != builds.first["build"]
    assert builds.second["loads"] == {}


def test_broken_records_are_in_quarantine_with_rule_and_reason(builds: Builds) -> None:
    aside = builds.table("ingest", "quarantined")
    assert aside.select("rule", "reason").rows() == [
        ("empty", "record 35: the text has no visible character"),
        ("too_long", "record 36: the text has 100000 characters; the limit is 20000"),
        ("control_characters", "record 37: control character U+0007 at character 15"),
    ]
    assert json.loads(aside["payload"][2])["text"] == BROKEN[2]


def test_odd_prompts_go_through_untouched_and_a_repeated_one_once(builds: Builds) -> None:
    ingested = builds.table("ingest")
    assert ingested["prompt"].to_list()[-4:] == list(STRANGE)
    assert ingested["row_id"].n_unique() == 34
    kept = builds.table("deduplicate")["prompt"].to_list()
    assert [kept.count(text) for text in STRANGE] == [1, 1, 1, 1]
    [lost] = builds.table("deduplicate", "dropped").filter(reason="exact_duplicate").to_dicts()
    assert json.loads(lost["payload"])["prompt"] == STRANGE[2]


def test_commands_read_a_store_in_any_folder(builds: Builds, command: Command) -> None:
    def said(*arguments: str) -> str:
        done = command(*arguments, "--store", str(builds.store))
        assert done.code == 0, done.err
        return done.out

    command.monkeypatch.chdir(builds.store.parent)
    released = builds.table("publish")
    [row] = json.loads(said("query", "SELECT * FROM savacu_publish ORDER BY row_id LIMIT 1", "--json"))
    assert row["row_id"] == released["row_id"].min()
    assert "date" not in row  # a folder named a=b is no column
    history = json.loads(said("trace", row["row_id"], "--json"))
    assert history["rows"][0]["stage"] == "publish"
    assert "ingest" in {each["stage"] for each in history["rows"]}
    page = said("report", "savacu").replace("\n", "")
    assert "data [v1] #5%20 *x" in page
    assert {table["stage"] for table in json.loads(said("tables", "savacu", "--json"))} >= {"ingest", "publish"}
    same = json.loads(said("diff", builds.first["build"], builds.second["build"], "--json"))
    assert "publish" in json.dumps(same)
    said("gc", "savacu")
    assert len(json.loads(said("builds", "savacu", "--json"))) == 2


def test_a_stage_built_alone_leaves_what_stands_on_it_stale_until_it_is_rebuilt(
    builds: Builds, command: Command
) -> None:
    place, changed = builds.store.parent, [*builds.arguments, "--set", "judge.threshold=0.4"]
    planned = {stage["name"]: stage["state"] for stage in told(command, place, "plan", *changed[1:])["stages"]}
    states = {name: planned[name] for name in ("generate_0_g1", "score_0", "judge_0", "select")}
    assert list(states.values()) == ["reused", "reused", "changed", "waiting"]
    why = told(command, place, "why", "savacu", "judge_0", *changed[2:])
    assert "arguments.threshold" in json.dumps(why)
    alone = told(command, place, *changed, "--only", "judge_0")
    assert alone["loads"] == {}
    assert {stage["name"]: stage["reused"] for stage in alone["stages"]}["judge_0"] is False
    assert alone["output"] is None
    assert {"select", "split", "publish"} <= set(alone["stale"])
    listed = {table["stage"]: table["stale"] for table in told(command, place, "tables", "savacu")}
    assert listed["select"] == alone["stale"]["select"]
    assert listed["classify"] is None
    rest = told(command, place, *changed, "--from", "judge_0")
    assert rest["stale"] == {}
    assert {stage["name"] for stage in rest["stages"]} >= {"generate_0_g1", "judge_0", "publish"}


def test_quarantined_rows_are_listed_and_tried_again(builds: Builds, command: Command) -> None:
    place = builds.store.parent
    rows = told(command, place, "quarantine", "savacu")
    assert [(row["stage"], row["rule"]) for row in rows] == [
        ("ingest", "empty"),
        ("ingest", "too_long"),
        ("ingest", "control_characters"),
    ]
    report = told(command, place, "quarantine", "savacu", "ingest", "--replay", *builds.arguments[2:])
    assert report["replayed"] == {"ingest": {"before": 3, "after": 3}}  # as broken as before
    remade = {stage["name"] for stage in report["stages"] if not stage["reused"]}
    assert remade == {"ingest"}


def test_a_store_is_verified_repaired_and_a_row_taken_back(builds: Builds, command: Command, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(builds.store.parent, place, symlinks=True, ignore=shutil.ignore_patterns("prefect"))
    store = Store(place / "store")
    verified = told(command, place, "verify", "savacu", "--sample", "8")
    assert (verified["damaged"], len(verified["sample"])) == ([], 8)
    assert {one["found"] for one in verified["sample"]} == {"bit-equal"}

    judged = store.current("savacu", "judge_0")
    assert judged
    directory = store.table_directory(judged.ref)
    files = [directory / part.files["rows"].name for part in judged.parts]
    before = [(path.stat().st_ino, path.read_bytes()) for path in files]
    files[0].write_bytes(before[0][1][:-1])
    repaired = told(command, place, "verify", "savacu", "--repair")
    assert [(one["stage"], one["part"]) for one in repaired["damaged"]] == [("judge_0", 0)]
    assert store.manifest(judged.ref).content == judged.content
    assert all(path.stat().st_ino == node for path, (node, _) in list(zip(files, before, strict=True))[1:])

    released = builds.table("publish")
    row, prompt = released.select("row_id", "prompt").row(0)
    asked = told(command, place, "forget", row, "--reason", "withdrawn", "--yes")
    assert {table["table"].split("/")[1] for table in asked["tables"]} >= {"ingest", "judge_0", "publish"}
    told(command, place, *builds.arguments)
    purged = told(command, place, "forget", "--purge", "--yes")
    assert (purged["found"], len(purged["removed"]) > 5) == ([], True)
    assert not [path for path in store.root.rglob("*.parquet") if prompt in str(pl.read_parquet(path).to_dicts())]
    assert told(command, place, "verify", "savacu")["damaged"] == []
