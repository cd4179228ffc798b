"""From rows of pairs to an adapter and back: the tuned policy prefers what it was trained to prefer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from peft import PeftModel
from scalars import number
from tiny_models import save_tiny_llama

from normloom.core.errors import StageError
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Output
from normloom.models import load_model
from normloom.models.transformers.engine import TransformersModel
from normloom.tasks.preferences.dpo.dpo_figures import dpo_figures
from normloom.tasks.preferences.dpo.log_probs import PairReading, log_probs
from normloom.tasks.preferences.dpo.train_dpo import Dpo, learn
from normloom.tasks.tuning.lora import FOLDER

ARGS = Dpo(batch=4, accumulate=1, epochs=6, learning_rate=1e-2, warmup_steps=0, checkpoint_steps=100)


def pairs(number: int = 24, **columns: list[Any]) -> pl.DataFrame:
    """Return pairs whose chosen reply says Yes and whose rejected one says No; every third is held out."""
    rows = {
        "row_id": [f"r{place}" for place in range(number)],
        "prompt_id": [f"p{place}" for place in range(number)],
        "dialogue": [f"d{place}" for place in range(number)],
        "messages": [
            [{"role": "system", "content": "Judge."}, {"role": "user", "content": f"Is it about cats? {place}"}]
            for place in range(number)
        ],
        "chosen": [f"Yes. {place}" for place in range(number)],
        "rejected": [f"No. {place}" for place in range(number)],
        "chosen_id": [f"g{place}" for place in range(number)],
        "rejected_id": [f"h{place}" for place in range(number)],
        "weight": [0.5 + place / 100 for place in range(number)],
        "split": ["held_out" if place % 3 == 2 else "train" for place in range(number)],
    }
    return pl.DataFrame({**rows, **columns})


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    directory = save_tiny_llama(tmp_path_factory.mktemp("tiny"))
    return ModelSpec(model=str(directory), dtype="float32", device="cpu", threads=1)


def read(rows: pl.DataFrame, model: TransformersModel, name: str, **named: Any) -> Output:
    return log_probs.function(rows, PairReading(), model, policy=name, **named)


def opened(policy: ModelSpec, adapter: Path | None = None) -> TransformersModel:
    model = load_model(policy, threads=1)
    assert isinstance(model, TransformersModel)
    if adapter:
        model.reader.model = PeftModel.from_pretrained(model.reader.model, adapter).eval()
    return model


def silent(step: int, of: int, figures: Mapping[str, float]) -> None:
    """Tell nobody."""


def test_a_tuned_policy_prefers_the_chosen_replies_to_prompts_it_has_not_seen(
    policy: ModelSpec, tmp_path: Path
) -> None:
    rows = pairs()
    reference = read(rows, opened(policy), "base").rows
    made = learn(rows, ARGS, reference, policy=policy, scratch=tmp_path, tell=silent)
    assert made.rows["loss"][0] == pytest.approx(0.6931 * number(rows.filter(split="train")["weight"].mean()), rel=0.1)
    assert made.metrics == {"pairs": 16}
    assert made.dropped["reason"].to_list() == ["held_out"] * 8
    assert made.attempts == made.rows.height + 8

    held_out = read(rows, opened(policy, tmp_path / FOLDER), "tuned", split="held_out").rows
    figures = dpo_figures.function(held_out, reference, beta=ARGS.beta).rows
    found = {row["metric"]: row for row in figures.iter_rows(named=True)}
    assert found["reward_accuracy"]["value"] == 1
    assert found["dpo_loss"]["high"] < 0.69


def test_the_first_step_is_at_the_start(policy: ModelSpec, tmp_path: Path) -> None:
    rows = pairs()
    reference = read(rows, opened(policy), "base").rows
    args = ARGS.model_copy(update={"weighted": False, "max_steps": 1})
    made = learn(rows, args, reference, policy=policy, scratch=tmp_path, tell=silent)
    assert made.rows["loss"][0] == pytest.approx(
        0.693147, abs=1e-4
    )  # ln 2: what was read before is what training reads


def test_pairs_that_cannot_be_learned_from_are_dropped_with_a_reason(policy: ModelSpec, tmp_path: Path) -> None:
    texts = [f"Yes. {place}" for place in range(24)]
    rows = pairs(chosen=["", *texts[1:]], rejected=["No", "Yes. 1", *(["No"] * 22)])
    reference = read(rows, opened(policy), "base").rows.filter(pl.col("pair_id") != "r3")
    args = ARGS.model_copy(update={"max_steps": 1})
    made = learn(rows, args, reference, policy=policy, scratch=tmp_path, tell=silent)
    reasons = dict(made.dropped.filter(pl.col("reason") != "held_out").select("row_id", "reason").iter_rows())
    assert reasons == {"r0": "no_reply", "r1": "same_text", "r3": "too_long"}


def test_no_pair_is_an_error(policy: ModelSpec, tmp_path: Path) -> None:
    rows = pairs(split=["held_out"] * 24)
    with pytest.raises(StageError, match=r"none of 24 pairs can be learned from \(held_out\)"):
        learn(rows, ARGS, pl.DataFrame(schema={"pair_id": pl.String}), policy=policy, scratch=tmp_path, tell=silent)
