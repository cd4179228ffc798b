"""Supervised tuning on a two-layer model of random weights: what is learned, resumed and refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import save_tiny_llama, tokenizer
from transformers import AutoModelForCausalLM

from normloom.core.errors import ConfigError, StageError, StoreError
from normloom.core.models.protocol import ModelSpec
from normloom.core.run import Run
from normloom.tasks.alignx.experts import tune_expert
from normloom.tasks.tuning.checkpoints import newest, seal
from normloom.tasks.tuning.lora import ADAPTER, CONFIG, FOLDER, Lora, trainable
from normloom.tasks.tuning.policies import Policy
from normloom.tasks.tuning.supervised import Curve, Replies, Tuning, tune
from normloom.tasks.tuning.trainer import on_one_gpu

STEPS = 10
ARGS = Tuning(
    batch=4, accumulate=1, max_steps=STEPS, learning_rate=1e-2, warmup_steps=0, lora=Lora(rank=4), checkpoint_steps=3
)


FEW = ARGS.model_copy(update={"max_steps": 3})
KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import test_supervised as these

these.tuned(Path(sys.argv[1]), Path(sys.argv[2]), dies_at=int(sys.argv[4]))
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def policy(tiny: Path) -> Policy:
    torch.set_num_threads(1)
    return Policy(AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32), tokenizer(), "tiny")


def replies(seed: int, number: int) -> Replies:
    """Return random prompts whose reply is always of the same few tokens."""
    drawn = np.random.default_rng(seed)
    prompts = [drawn.integers(3, 250, drawn.integers(2, 12)).tolist() for _ in range(number)]
    return Replies(prompts, [[7, 8, int(drawn.integers(9, 12)), 2] for _ in range(number)])


def tuned(tiny: Path, scratch: Path, *, dies_at: int | None = None, args: Tuning = ARGS) -> tuple[Curve, list[int]]:
    told = []

    def tell(step: int, of: int, figures: Mapping[str, float]) -> None:
        assert of == STEPS
        assert figures["loss"] > 0
        told.append(step)
        if step == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return tune(replies(0, 24), replies(1, 6), args, policy(tiny), scratch=scratch, tell=tell), told


def test_replies_are_learned_and_held_out_ones_are_likelier(tiny: Path, tmp_path: Path) -> None:
    curve, told = tuned(tiny, tmp_path)
    assert told == list(range(1, STEPS + 1)) == [int(entry["step"]) for entry in curve.steps]
    assert curve.steps[-1]["loss"] < curve.steps[0]["loss"]
    assert curve.before is not None
    assert curve.after is not None
    assert curve.after < curve.before
    assert curve.before == pytest.approx(_loss_by_hand(tiny), rel=0.02)  # TRL's is a mean of means by batch
    assert {path.name for path in (tmp_path / FOLDER).iterdir()} == {ADAPTER, CONFIG}
    assert "/" not in (tmp_path / FOLDER / CONFIG).read_text()


def _loss_by_hand(tiny: Path) -> float:
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    own, losses = replies(1, 6), []
    for prompt, reply in zip(own.prompts, own.replies, strict=True):
        with torch.inference_mode():
            told = model(torch.tensor([[*prompt, *reply]])).logits[0].log_softmax(-1)
        losses += [-told[len(prompt) - 1 + at, token].item() for at, token in enumerate(reply)]
    return float(np.mean(losses))


def test_a_killed_tuning_resumes_and_ends_with_the_same_weights(tiny: Path, tmp_path: Path) -> None:
    whole, _ = tuned(tiny, tmp_path / "whole")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tiny), str(tmp_path / "killed"), str(Path(__file__).parent), "8"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    again, told = tuned(tiny, tmp_path / "killed")
    assert told == list(range(7, STEPS + 1))  # from the checkpoint at 6
    one, other = (load_file(tmp_path / name / FOLDER / ADAPTER) for name in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (again.before, again.after) == (whole.before, whole.after)
    assert [entry["loss"] for entry in again.steps] == [entry["loss"] for entry in whole.steps]


def test_a_loss_that_is_not_finite_names_the_step(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"of step \d+ is (nan|inf).*: lower the learning rate"):
        tuned(tiny, tmp_path, args=ARGS.model_copy(update={"learning_rate": 1e30}))


def test_without_held_out_replies_there_is_no_loss_of_them(tiny: Path, tmp_path: Path) -> None:
    args = ARGS.model_copy(update={"max_steps": 1})
    curve = tune(replies(0, 4), Replies([], []), args, policy(tiny), scratch=tmp_path, tell=lambda *_: None)
    assert (curve.before, curve.after, len(curve.steps)) == (None, None, 1)


def test_a_quantized_policy_is_refused_and_one_gpu_of_several_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match=r"the policy is quantized \(bitsandbytes\) and cannot be trained"):
        trainable(SimpleNamespace(quantization_method="bitsandbytes"))
    configured = SimpleNamespace(n_gpu=4, _n_gpu=4)
    assert on_one_gpu(configured)._n_gpu == 1
    assert "4 GPUs are visible, one is asked for" in caplog.text


def test_an_axis_without_a_good_reply_has_no_expert(tiny: Path, tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {"row_id": ["1"], "prompt_id": ["p"], "variant": ["plain"], "split": ["train"], "prompt": ["Why?"]}
    )
    known = pl.DataFrame(
        {"row_id": ["p"], "axis": ["kind"], "history": [None], "reference": [[]]},
        schema_overrides={"reference": pl.List(pl.String)},
    )
    base = ModelSpec(model=str(tiny), device="cpu", threads=1)
    for axis, reasons in (("kind", "no_reply"), ("brief", "no prompt")):
        with pytest.raises(StageError, match=rf"axis '{axis}': it has no reply that can be learned from \({reasons}\)"):
            tune_expert.function(rows, ARGS, known, axis=axis, policy=base, run=Run(tmp_path, tmp_path))


class Harmful:
    """What a checkpoint could hold if its pickles were run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_checkpoint_that_cannot_be_read_is_named_and_not_run(tiny: Path, tmp_path: Path) -> None:
    tune(replies(0, 24), Replies([], []), FEW, policy(tiny), scratch=tmp_path, tell=lambda *_: None)
    checkpoint = newest(tmp_path)
    assert checkpoint
    torch.save({"state": Harmful(tmp_path / "run")}, checkpoint / "optimizer.pt")
    seal(checkpoint)
    with pytest.raises(StoreError, match=r"(?s)checkpoint-3 cannot be read .*; remove it to start from the one before"):
        tuned(tiny, tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_cannot_be_written_is_said(tiny: Path, tmp_path: Path) -> None:
    def block(step: int, *_: Any) -> None:
        if step == 2:
            (tmp_path / "checkpoint-3").touch()

    with pytest.raises(StoreError, match=r"a checkpoint cannot be written \(File exists\)"):
        tune(replies(0, 24), Replies([], []), FEW, policy(tiny), scratch=tmp_path, tell=block)
