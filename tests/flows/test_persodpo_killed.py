"""The real build command, killed while it trains: the same command resumes, and nothing shows that it was killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
from in_process import SCRIPTED, prepared
from prefect_home import Prefect
from safetensors.torch import load_file
from tiny_models import save_tiny_llama

from normloom.core.table import Manifest
from normloom.steps.graph import stages_of
from normloom.store.store import SCRATCH, Store
from normloom.tasks.preferences.dpo.checkpoints import LIST
from normloom.tasks.preferences.dpo.training import ADAPTER
from normloom.testing import made

STEPS = 60
LONGEST = 300.0  # seconds; a build that takes longer hangs


def settings(policy: Path) -> list[str]:
    return [
        f"models.policy={{engine: transformers, model: {policy}, device: cpu, threads: 1}}",
        f"train={{batch: 2, accumulate: 2, max_steps: {STEPS}, learning_rate: 0.01, checkpoint_steps: 2}}",
        "reply.replies=2",
        "resources.actors=0",
    ]


def started(store: Path, policy: Path, prefect: Prefect) -> subprocess.Popen[bytes]:
    given = [part for one in [*SCRIPTED["persodpo"], *settings(policy)] for part in ("--set", one)]
    command = ["build", "persodpo", "--profile", "local", "--only", "train", "--store", str(store), *given]
    with prefect.used():
        environment = dict(os.environ)
    return subprocess.Popen(
        [sys.executable, "-m", "normloom", *command],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def killed_at(step: int, process: subprocess.Popen[bytes], store: Path) -> None:
    """Kill the build and all that it started once it has a checkpoint of the step or of a later one."""
    deadline = time.monotonic() + LONGEST
    while process.poll() is None and time.monotonic() < deadline:
        whole = store.glob(f"persodpo/train/*/{SCRATCH}/checkpoint-*/{LIST}")
        if any(int(path.parent.name.rpartition("-")[2]) >= step for path in whole):
            break
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()


def learned(store: Path, manifest: Manifest) -> tuple[pl.DataFrame, dict[str, torch.Tensor]]:
    """Return the curve and the weights of a table of training."""
    opened = Store(store)
    [weights] = opened.folder(manifest.ref).rglob(ADAPTER)
    return opened.scan(manifest.ref).collect().drop("seconds"), load_file(weights)


def test_a_build_that_is_killed_while_it_trains_resumes_as_if_it_had_not_been(
    shared_prefect: Prefect, tmp_path: Path
) -> None:
    policy, whole, cut = save_tiny_llama(tmp_path / "tiny"), tmp_path / "whole", tmp_path / "cut"
    ends = prepared("persodpo", Store(whole), *settings(policy)).ends
    stages = {stage.name: stage for stage in stages_of(*ends)}
    made("persodpo", [stages["log_probs_base"]], Store(whole))
    shutil.copytree(whole, cut)
    undisturbed = made("persodpo", [stages["train"]], Store(whole))["train"]

    killed_at(int(np.random.default_rng().integers(2, STEPS // 2)), started(cut, policy, shared_prefect), cut)
    assert not [manifest for manifest in Store(cut).newest("persodpo") if manifest.stage == "train"]
    left = {path.parent.name for path in cut.glob(f"persodpo/train/*/{SCRATCH}/checkpoint-*/{LIST}")}

    process = started(cut, policy, shared_prefect)
    _, said = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, said.decode()
    [resumed] = [manifest for manifest in Store(cut).newest("persodpo") if manifest.stage == "train"]
    assert resumed.ref == undisturbed.ref  # the key is the same, and so are the rows
    assert left

    (curve, weights), (again, reloaded) = learned(whole, undisturbed), learned(cut, resumed)
    assert curve["step"].to_list() == list(range(1, STEPS + 1))
    assert again.equals(curve)  # no gap, and no step that was made twice
    assert weights.keys() == reloaded.keys()
    assert all(torch.equal(weights[name], reloaded[name]) for name in weights)
