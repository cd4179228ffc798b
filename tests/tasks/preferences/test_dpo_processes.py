"""Training in two processes is training in one: the same steps of the same pairs, also after one is killed."""

from __future__ import annotations

from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
import torch
from safetensors.torch import load_file
from test_dpo_training import ARGS, STEPS, silent, some_pairs
from tiny_models import save_tiny_llama
from torch.testing import assert_close

from normloom.core.errors import ConfigError, StageError
from normloom.core.models.protocol import ModelSpec
from normloom.tasks.preferences.dpo.processes import _heard, _said, _say, train_in_processes
from normloom.tasks.preferences.dpo.train_dpo import _processes
from normloom.tasks.preferences.dpo.training import share_of_batch, train
from normloom.tasks.tuning.checkpoints import newest
from normloom.tasks.tuning.lora import ADAPTER, FOLDER
from normloom.tasks.tuning.policies import Tell, load

PAIRS = some_pairs(23)  # the last step of an epoch is of three pairs: one process takes two, the other one


def started() -> list[psutil.Process]:
    """Return the processes that train, in their order."""
    mine = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
    return sorted(mine, key=lambda child: (child.create_time(), child.pid))


def test_two_processes_make_the_steps_of_one_and_resume_after_a_kill(tmp_path: Path) -> None:
    policy = ModelSpec(model=str(save_tiny_llama(tmp_path / "tiny")), dtype="float32", device="cpu", threads=1)
    curve = train(PAIRS, ARGS, load(policy), scratch=tmp_path / "one", tell=silent)
    two = tmp_path / "two"

    def kill(step: int, *_: Any) -> None:
        if step == 5:
            second = started()[1]
            second.kill()

    with pytest.raises(StageError, match=r"process 2 of 2 of the training ended \(SIGKILL\); the same command resumes"):
        train_in_processes(2, PAIRS, ARGS, policy, scratch=two, tell=kill)
    assert not started()
    last = newest(two)
    assert last is not None
    done = int(last.name.removeprefix("checkpoint-"))
    assert 3 <= done < STEPS

    steps: list[int] = []
    again = train_in_processes(2, PAIRS, ARGS, policy, scratch=two, tell=lambda step, *_: steps.append(step))
    assert steps == list(range(done + 1, STEPS + 1))
    for name in curve.drop("seconds").columns:
        assert again[name].to_list() == pytest.approx(curve[name].to_list(), abs=1e-4), name
    weights, expected = (load_file(tmp_path / run / FOLDER / ADAPTER) for run in ("two", "one"))
    assert weights.keys() == expected.keys()
    for name in weights:
        assert_close(weights[name], expected[name], rtol=1e-4, atol=1e-5)


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    assert share_of_batch(ARGS, 2) == 1
    with pytest.raises(ConfigError, match=r"train\.batch: 2 pairs cannot be shared by 4 GPUs; make it a multiple of 4"):
        share_of_batch(ARGS, 4)


def test_what_a_process_says_went_wrong_is_raised_here() -> None:
    receiver, speaker = Pipe(duplex=False)
    speaker.send(StageError("the loss is nan"))
    with pytest.raises(StageError, match="the loss is nan"):
        _heard([receiver], silent)
    assert _said(None, 2) == "the training in 2 processes ended without a result (None)"


def test_a_process_sends_its_curve_or_what_went_wrong_and_ends_if_nobody_listens() -> None:
    receiver, speaker = Pipe(duplex=False)

    def work(tell: Tell) -> pl.DataFrame:
        tell(1, 2, {"loss": 0.5})
        return pl.DataFrame({"step": [1]})

    def fail(_: Tell) -> pl.DataFrame:
        raise StageError("the loss is nan")

    _say(speaker, work, first=True)
    assert (receiver.recv(), receiver.recv()["step"].to_list()) == ((1, 2, {"loss": 0.5}), [1])
    _say(speaker, work, first=False)
    with pytest.raises(StageError):
        _say(speaker, fail, first=False)
    assert str(receiver.recv()) == "the loss is nan"
    receiver.close()
    with pytest.raises(SystemExit, match="nobody listens: the build has ended"):
        _say(speaker, work, first=True)
    with pytest.raises(StageError):
        _say(speaker, fail, first=True)


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="there are several GPUs")
def test_gpus_that_a_process_does_not_see_are_named() -> None:
    assert _processes(ModelSpec(model="m", device="cpu"), 2) == 1
    with pytest.raises(ConfigError, match="the training is given 2 GPUs, but its process sees "):
        _processes(ModelSpec(model="m"), 2)
