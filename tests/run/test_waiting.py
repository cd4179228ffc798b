"""A build whose model answers in batches: it ends while they are out, and the same command collects them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from openai_toys import VARIABLE, spec_of
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import FlowRunSort
from prefect_home import Prefect
from scripted_server import KEY, serving

from normloom.cli.app import run_command
from normloom.core.errors import WaitingError
from normloom.history.unfinished import unfinished
from normloom.run.build import BuildRequest, build
from normloom.store.store import Store
from normloom.testing.toy import echo_stage, words_stage
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources


def test_it_ends_without_a_failure_and_the_next_one_finishes(
    shared_prefect: Prefect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    store = Store(tmp_path / "store")

    def make() -> int:
        words = words_stage(*"abcdef")
        end = echo_stage(words, model=spec_of(server.base_url, batch=True), part_rows=3)
        request = BuildRequest(system="toy", target=None)
        return build(end, request=request, store=store, pool=Pool(Resources(actors=0))).released.count("rows")

    with serving() as server, shared_prefect.used(), get_client(sync_client=True) as client:
        with pytest.raises(WaitingError, match=r"stage 'echo' waits for 2 of 2 parts"):
            make()
        [left] = unfinished(store, "toy")
        assert (left.state, left.stage) == ("waiting", "echo")
        [run] = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
        assert run.state
        assert (run.state.name, run.state.type.value) == ("Waiting", "COMPLETED")
        assert "waits for 2 of 2 parts" in str(run.state.message)
        server.batches.ends = "completed"
        assert make() == 6
        assert len(server.batches.sent) == 2


FLOW = """
import polars as pl
import normloom as nl

@nl.step(makes={"text": pl.String})
def ask(rows: pl.DataFrame, *, model) -> pl.DataFrame:
    raise nl.WaitingError("batch 7 is out")

def flow():
    return [ask(nl.table([{"word": "a"}]), model=nl.ModelSpec(engine="scripted", model="toy"))]
"""


def test_the_command_ends_with_3_and_says_how_to_go_on(
    shared_prefect: Prefect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_flow.py").write_text(FLOW)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["normloom", "build", "my_flow.py", "--set", "resources.actors=0"])
    with shared_prefect.used():
        assert run_command() == 3
    said = capsys.readouterr().err
    assert "stage 'ask' waits: batch 7 is out" in said
    assert "to collect: normloom build my_flow.py --profile local --set resources.actors=0" in said
