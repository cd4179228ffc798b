"""SaVaCu under the profiles for endpoints, against a server without log-probabilities, past proxies that are dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from command_line import Command, Ran
from prefect_home import Prefect
from scripted_server import KEY, MODEL, serving

SETTINGS = (
    "models.embedder={engine: scripted, model: embedder}",
    "classify.delta=0.01",
    "resources.actors=0",
    "rounds=0",
    "pairs=false",
    "generate.sampling.max_tokens=40",
)


def proxies() -> list[str]:
    return [name for name in os.environ if name.lower().endswith("_proxy")]


@pytest.fixture(autouse=True)
def _proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy is set but those of a test; what a command adds to the exceptions is gone after it."""
    for name in proxies():
        monkeypatch.delenv(name)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")


def in_a_process(*arguments: str) -> Ran:
    done = subprocess.run(
        [sys.executable, "-m", "normloom", *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def command_line(profile: str, store: Path, *options: str) -> list[str]:
    assigned = [part for setting in SETTINGS for part in ("--set", setting)]
    return ["build", "savacu", "--profile", profile, "--limit", "4", "--store", str(store), *assigned, *options]


@pytest.mark.parametrize(("profile", "key"), [("hosted", KEY), ("ollama", None)])
def test_four_prompts(
    profile: str,
    key: str | None,
    command: Command,
    shared_prefect: Prefect,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # One build in a process that starts a Prefect server past the dead proxies is enough.
    build, found = (in_a_process, nullcontext()) if key else (command, shared_prefect.used())
    store = tmp_path / "store"
    refuses = {} if key else {"seed": "seed is not supported"}
    answers: dict[str, Any] = {"thoughts": "I see.", "refuses": refuses, "options": {"words": 20, "yes_rate": 0.9}}
    with found, serving(logprobs=False, key=key, **answers) as server:
        environment = {
            "HTTP_PROXY": "http://127.0.0.1:9",
            "ALL_PROXY": "socks://127.0.0.1:9/",
            "NORMLOOM_BASE_URL": server.base_url,
            "NORMLOOM_MODEL": MODEL,
            "NORMLOOM_CACHE": str(tmp_path / "cache"),
            "OPENAI_API_KEY": key or "",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        done = build(*command_line(profile, store, "--json"))
        assert done.code == 0, done.err[-3000:]
        asked = len(server.bodies)
        again = command(*command_line(profile, store))
        assert again.code == 0, again.err[-3000:]
        assert len(server.bodies) == asked  # nothing to do: nobody is asked
    stages = {stage["name"]: stage for stage in json.loads(done.out)["stages"]}
    assert stages[f"generate_0_{profile}"]["rows_out"] == 8
    assert stages["score_0"]["scores"] == "each score is one written answer, not a probability"
    assert f"answers (asked {2 if key else 3} times); each score is one written" in " ".join(done.err.split())
    assert stages["score_0"]["endpoint_lacks"] == list(refuses)
    assert ("takes no seeds: what it drew cannot be drawn again" in again.out) == bool(refuses)
    assert "score_0: each score is one written answer" in again.out
    assert json.loads(done.out)["spent"]["cost"] is None
    assert stages["publish"]["rows_out"] > 0
    candidates = pl.read_parquet(next(store.glob(f"savacu/generate_0_{profile}/*/rows-*.parquet")))
    assert set(candidates["reasoning"]) == {"I see."}
    assert not candidates["response"].str.contains("<|I see").any()
    told = (done.out + done.err + again.out + again.err).encode()
    assert KEY.encode() not in told
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "export NORMLOOM_MODEL=... NORMLOOM_BASE_URL=..."),
        ({"NORMLOOM_BASE_URL": "http://127.0.0.1:9/v1"}, "export NORMLOOM_MODEL=..."),
        ({"NORMLOOM_BASE_URL": "http://127.0.0.1:9/v1", "NORMLOOM_MODEL": "m"}, "OPENAI_API_KEY is not set"),
        ({"NORMLOOM_BASE_URL": "http://127.0.0.1:9/v1", "NORMLOOM_MODEL": "m", "OPENAI_API_KEY": KEY}, "be reached"),
        ({"NORMLOOM_BASE_URL": "http://u:pw@h/v1", "NORMLOOM_MODEL": "m", "OPENAI_API_KEY": KEY}, "without user"),
    ],
)
def test_what_is_missing_is_one_sentence(
    environment: dict[str, str], message: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NORMLOOM_BASE_URL", "NORMLOOM_MODEL", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, environment.get(name, ""))
    done = command(*command_line("hosted", tmp_path / "store"))
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    assert message in done.err
    assert KEY not in done.err


def test_doctor_names_the_profiles(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        environment = {"NORMLOOM_BASE_URL": server.base_url, "NORMLOOM_MODEL": "", "OPENAI_API_KEY": KEY}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        done = command("doctor", "--json", "--store", str(tmp_path))
    found: dict[str, Any] = {one["name"]: one for one in json.loads(done.out)}
    assert found["profile hosted"]["state"] == "missing"
    assert found["profile hosted"]["remedy"] == "export NORMLOOM_MODEL=..."
    assert found["profile ollama"]["state"] == "ok"
    assert KEY not in done.out
