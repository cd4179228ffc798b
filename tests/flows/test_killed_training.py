"""The command is killed while it trains; the same command resumes, and ends with the weights of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from in_process import SCRIPTED, prepared
from prefect_home import Prefect
from tiny_models import save_tiny_llama

from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.testing import made

STEPS, KILL_AT = 20, 10
ENOUGH = 180.0  # seconds


def test_a_killed_build_resumes_its_training(shared_prefect: Prefect, tmp_path: Path) -> None:
    policy = save_tiny_llama(tmp_path / "tiny")
    settings = [
        *SCRIPTED["persodpo"],
        f"models.policy={{engine: transformers, model: {policy}, device: cpu, threads: 1}}",
        f"train={{batch: 2, accumulate: 1, max_steps: {STEPS}, learning_rate: 0.01, checkpoint_steps: 5}}",
        "reply.replies=1",
        "pairs.held_out=0.5",
    ]
    alone = Store(tmp_path / "alone")
    [train] = (stage for stage in stages_of(*prepared("persodpo", alone, *settings[1:]).ends) if stage.name == "train")
    command = [sys.executable, "-m", "normloom", "build", "persodpo", "--store", str(tmp_path / "store"), "--json"]
    for setting in [*settings, "resources.actors=1"]:
        command += ["--set", setting]
    for stage in stages_of(train):
        command += ["--only", stage.name]
    with shared_prefect.used():
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        ) as build:
            deadline = time.monotonic() + ENOUGH
            while not list((tmp_path / "store").glob(f"persodpo/train/*/**/checkpoint-{KILL_AT}*")):
                assert build.poll() is None, build.communicate()[0].decode()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            os.killpg(build.pid, signal.SIGKILL)
        resumed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    stages = {stage["name"]: stage for stage in json.loads(resumed.stdout)["stages"]}
    assert stages["pairs"]["reused"]
    assert not stages["train"]["reused"]
    store = Store(tmp_path / "store")
    manifest = store.current("persodpo", "train")
    assert manifest
    assert store.scan(manifest.ref).collect()["step"].to_list() == list(range(1, STEPS + 1))
    undisturbed = made("persodpo", [train], alone)["train"]
    digests = [{name: one.sha256 for name, one in table.attached.items()} for table in (manifest, undisturbed)]
    assert digests[0] == digests[1]
    tables = ((store, manifest), (alone, undisturbed))
    one, other = (place.scan(table.ref).collect().drop("row_id", "seconds") for place, table in tables)
    assert one.equals(other)
