"""Training by DPO on a two-layer model of random weights: the weighted loss, checkpoints, kills and bad input."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import save_tiny_llama, tokenizer
from transformers import AutoModelForCausalLM
from trl import DPOTrainer

from normloom.core.errors import StageError, StoreError
from normloom.tasks.preferences.dpo.trainer import PAIR, WEIGHT, Collator, WeightedDPOTrainer
from normloom.tasks.preferences.dpo.training import (
    Pairs,
    Training,
    _configured,
    _data_set,
    train,
)
from normloom.tasks.tuning.checkpoints import LIST, newest, seal
from normloom.tasks.tuning.lora import ADAPTER, CONFIG, FOLDER, lora_config
from normloom.tasks.tuning.policies import Policy

STEPS = 12
ARGS = Training(batch=2, accumulate=2, epochs=2, checkpoint_steps=3, learning_rate=1e-2, warmup_steps=2)


def some_pairs(number: int = 24) -> Pairs:
    drawn = np.random.default_rng(0)

    def tokens(longest: int) -> list[list[int]]:
        return [drawn.integers(3, 250, drawn.integers(2, longest)).tolist() for _ in range(number)]

    return Pairs(
        prompts=tokens(12),
        chosen=tokens(9),
        rejected=tokens(9),
        ref_chosen=drawn.uniform(-30, -10, number).tolist(),
        ref_rejected=drawn.uniform(-30, -10, number).tolist(),
        weights=drawn.uniform(0.5, 0.7, number).tolist(),
        names=[f"row{place}" for place in range(number)],
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def policy(tiny: Path) -> Policy:
    torch.set_num_threads(1)
    return Policy(AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32), tokenizer(), "tiny")


def silent(step: int, of: int, figures: Mapping[str, float]) -> None:
    """Tell nobody."""


def trainer(tiny: Path, scratch: Path) -> WeightedDPOTrainer:
    model, pairs = policy(tiny).model, some_pairs()
    return WeightedDPOTrainer(
        model=model,
        peft_config=lora_config(ARGS.lora, model),
        args=_configured(ARGS, scratch, on_cpu=True),
        data_collator=Collator(pad_token_id=2),
        train_dataset=_data_set(pairs, PAIR, WEIGHT),
        processing_class=tokenizer(),
        names=list(pairs.names),
    )


def loss_and_gradient(
    one: WeightedDPOTrainer, batch: dict[str, Any], *, own: bool = True
) -> tuple[float, torch.Tensor]:
    one.model.zero_grad()
    loss = one._compute_loss(one.model, batch, False) if own else DPOTrainer._compute_loss(one, one.model, batch, False)
    loss.backward()
    parts = [part.grad.flatten() for part in one.model.parameters() if part.grad is not None]
    return loss.item(), torch.cat(parts)


def test_the_weight_of_a_pair_is_in_the_loss(tiny: Path, tmp_path: Path) -> None:
    one = trainer(tiny, tmp_path)
    rows = [one.train_dataset[place] for place in range(4)]
    batch = one.data_collator(rows)
    plain = {name: values for name, values in batch.items() if name not in {PAIR, WEIGHT}}
    loss, gradient = loss_and_gradient(one, plain, own=False)  # TRL's own code on the same batch

    ones, same = loss_and_gradient(one, {**batch, WEIGHT: torch.ones(4)})
    assert ones == loss  # to the last digit
    assert torch.equal(same, gradient)

    half, halved = loss_and_gradient(one, {**batch, WEIGHT: torch.full((4,), 0.5)})
    assert half == loss / 2
    torch.testing.assert_close(halved, gradient / 2)

    weighted, turned = loss_and_gradient(one, batch)
    assert weighted != loss
    direction = torch.nn.functional.cosine_similarity(turned, gradient, dim=0)
    assert direction < 0.9999  # it is another direction, not another step size

    alone = [loss_and_gradient(one, {**one.data_collator([row]), WEIGHT: torch.ones(1)})[0] for row in rows]
    expected = np.mean([row[WEIGHT] * part for row, part in zip(rows, alone, strict=True)])
    assert weighted == pytest.approx(expected, rel=1e-5)


def test_training_lowers_the_loss_and_writes_an_adapter_without_pickles(tiny: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    curve = train(some_pairs(), ARGS, policy(tiny), scratch=tmp_path, tell=lambda step, of, _: told.append((step, of)))
    assert curve["step"].to_list() == list(range(1, STEPS + 1))
    assert told == [(step, STEPS) for step in range(1, STEPS + 1)]
    assert curve["unweighted_loss"].tail(3).mean() < curve["unweighted_loss"].head(3).mean()  # type: ignore[operator]
    assert curve["learning_rate"][1] < curve["learning_rate"][2]  # the warm-up
    assert curve["tokens"].is_sorted()
    assert {path.name for path in (tmp_path / FOLDER).iterdir()} == {ADAPTER, CONFIG}
    assert json.loads((tmp_path / FOLDER / CONFIG).read_text())["base_model_name_or_path"] == "tiny"
    assert str(tiny) not in (tmp_path / FOLDER / CONFIG).read_text()


def test_few_layers_can_be_trained_alone(tiny: Path, tmp_path: Path) -> None:
    args = ARGS.model_copy(update={"max_steps": 1, "lora": ARGS.lora.model_copy(update={"last_layers": 1})})
    curve = train(some_pairs(), args, policy(tiny), scratch=tmp_path, tell=silent)
    assert curve.height == 1
    names = load_file(tmp_path / FOLDER / ADAPTER).keys()
    assert {name.split(".layers.")[1][0] for name in names} == {"1"}


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import test_dpo_training as these
from normloom.tasks.preferences.dpo.training import train

def die(step, of, figures):
    if step == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

train(these.some_pairs(), these.ARGS, these.policy(Path(sys.argv[1])), scratch=Path(sys.argv[2]), tell=die)
"""


def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(tiny: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    curve = train(some_pairs(), ARGS, policy(tiny), scratch=whole, tell=silent)
    died = int(np.random.default_rng().integers(4, STEPS))  # any step after the first checkpoint
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tiny), str(cut), str(Path(__file__).parent), str(died)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    last = newest(cut)
    assert last is not None
    assert int(last.name.removeprefix("checkpoint-")) == (died - 1) // 3 * 3

    steps: list[int] = []
    resumed = train(some_pairs(), ARGS, policy(tiny), scratch=cut, tell=lambda step, *_: steps.append(step))
    assert steps[0] == (died - 1) // 3 * 3 + 1  # nothing is trained twice
    assert resumed.drop("seconds").equals(curve.drop("seconds"))  # the curve has no gap
    weights, again = load_file(whole / FOLDER / ADAPTER), load_file(cut / FOLDER / ADAPTER)
    assert weights.keys() == again.keys()
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_loss_that_is_not_finite_names_the_step_and_the_rows(tiny: Path, tmp_path: Path) -> None:
    pairs = some_pairs()
    broken = [float("nan") if place == 5 else value for place, value in enumerate(pairs.ref_chosen)]
    with pytest.raises(StageError, match=r"the loss of step \d+ is nan: rows row5 of its batch"):
        train(replace(pairs, ref_chosen=broken), ARGS, policy(tiny), scratch=tmp_path, tell=silent)


def test_a_gradient_that_is_not_finite_names_the_step_and_the_rows(tiny: Path, tmp_path: Path) -> None:
    pairs = some_pairs(4)
    steep = replace(pairs, weights=[1e38, *pairs.weights[1:]])  # the loss of the pair is finite, its slope is not
    with pytest.raises(StageError, match=r"the gradient of step 1 is (inf|nan): rows (row\d, ){3}row\d of its batch"):
        train(steep, ARGS, policy(tiny), scratch=tmp_path, tell=silent)
    assert newest(tmp_path) is None


def test_a_full_disk_in_a_checkpoint_is_said_and_the_one_before_counts(tiny: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill(step: int, *_: Any) -> None:
        if step == 5:  # after the first checkpoint no file may have more than this
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))

    try:
        with pytest.raises(StoreError, match="a checkpoint cannot be written"):
            train(some_pairs(), ARGS, policy(tiny), scratch=tmp_path, tell=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    last = newest(tmp_path)
    assert last is not None
    assert last.name == "checkpoint-3"


def test_checkpoints_count_only_if_they_are_whole(tmp_path: Path) -> None:
    for step in (3, 6, 9, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"state")
    for step in (3, 6, 9):
        seal(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-9" / "optimizer.pt").write_bytes(b"other")
    assert newest(tmp_path) == tmp_path / "checkpoint-6"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-3", "checkpoint-6"]
    assert (tmp_path / "checkpoint-6" / LIST).exists()
    assert newest(tmp_path / "nowhere") is None


class Harmful:
    """What a checkpoint could hold if its pickles were run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_nothing_in_a_checkpoint_is_unpickled(name: str, tiny: Path, tmp_path: Path) -> None:
    args = ARGS.model_copy(update={"max_steps": 3})
    train(some_pairs(), args, policy(tiny), scratch=tmp_path, tell=silent)
    checkpoint = newest(tmp_path)
    assert checkpoint is not None
    torch.save({"state": Harmful(tmp_path / "run")}, checkpoint / name)
    seal(checkpoint)
    with pytest.raises(StoreError, match="checkpoint-3 cannot be read"):
        train(some_pairs(), ARGS, policy(tiny), scratch=tmp_path, tell=silent)
    assert not (tmp_path / "run").exists()
