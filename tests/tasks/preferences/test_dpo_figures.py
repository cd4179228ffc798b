"""Log-probabilities of the replies of pairs, and what they say of a tuned policy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from normloom.core.errors import ConfigError
from normloom.core.models.protocol import ModelSpec, ReplyRequest, ReplyScore
from normloom.models.scripted import ScriptedModel
from normloom.tasks.preferences.dpo.dpo_figures import dpo_figures, scores
from normloom.tasks.preferences.dpo.log_probs import PairReading, log_probs, request

ASKED = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who?"}]


def pairs(**columns: list[Any]) -> pl.DataFrame:
    rows = {
        "row_id": ["a", "b", "c", "d"],
        "prompt_id": ["p"] * 4,
        "dialogue": ["d"] * 4,
        "messages": [ASKED] * 4,
        "chosen": ["Me and you", "", "Same", "I am"],
        "rejected": ["Nobody", "No", "Same", "You are not"],
        "chosen_id": ["g"] * 4,
        "rejected_id": ["h"] * 4,
        "split": ["train", "train", "train", "held_out"],
    }
    return pl.DataFrame({**rows, **columns})


def scripted(**options: Any) -> ScriptedModel:
    return ScriptedModel(ModelSpec(engine="scripted", model="m", options=options))


def test_pairs_that_nothing_can_be_learned_from_are_dropped_with_a_reason() -> None:
    made = log_probs.function(pairs(), PairReading(), scripted(), policy="base")
    assert made.rows["pair_id"].to_list() == ["a", "d"]
    assert made.dropped.select("row_id", "reason").rows() == [("b", "no_reply"), ("c", "same_text")]
    one = made.rows.row(0, named=True)
    assert (one["chosen_tokens"], one["rejected_tokens"], one["prompt_tokens"]) == (4, 2, 3)


def test_a_sequence_that_is_too_long_is_counted_and_never_cut() -> None:
    made = log_probs.function(pairs(), PairReading(max_tokens=6), scripted(), policy="base")
    assert made.dropped.filter(reason="too_long")["row_id"].to_list() == ["a", "d"]
    full = scripted(overflow_on="Who?")
    assert log_probs.function(pairs(), PairReading(), full, policy="base").dropped.filter(reason="too_long").height == 2


def test_one_split_may_be_read_alone() -> None:
    made = log_probs.function(pairs(), PairReading(), scripted(), policy="tuned", split="held_out")
    assert made.rows["pair_id"].to_list() == ["d"]
    assert set(made.dropped["reason"]) == {"other_split"}


def test_a_model_that_cannot_score_replies_is_refused() -> None:
    class Writer:
        """No scorer of replies."""

    with pytest.raises(ConfigError, match="policy 'base': its engine does not score replies"):
        log_probs.function(pairs(), PairReading(), Writer(), policy="base")  # type: ignore[arg-type]  # refused


def test_a_pair_is_asked_as_its_prompt_was() -> None:
    said = [*ASKED, {"role": "assistant", "content": "You."}, {"role": "user", "content": "Why?"}]
    asked = request({"messages": said}, "So.")
    assert asked.instruction == "Be kind."
    assert [tuple(turn) for turn in asked.history] == [("user", "Who?"), ("assistant", "You.")]
    assert asked == ReplyRequest(instruction="Be kind.", prompt="Why?", reply="So.", history=asked.history)
    [score] = scripted().score_replies([asked])
    assert isinstance(score, ReplyScore)


def read(policy: str, chosen: list[float], rejected: list[float]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "pair_id": [f"p{place}" for place in range(len(chosen))],
            "dialogue": [f"d{place // 2}" for place in range(len(chosen))],
            "policy": policy,
            "chosen_logprob": chosen,
            "rejected_logprob": rejected,
        }
    )


def test_a_policy_that_has_not_moved_is_at_its_start() -> None:
    base = read("base", [-10.0] * 12, [-12.0] * 12)
    made = dpo_figures.function(base.with_columns(policy=pl.lit("tuned")), base, beta=0.1).rows
    found = {row["metric"]: row["value"] for row in made.iter_rows(named=True)}
    assert found == {"reward_accuracy": 0.5, "dpo_loss": pytest.approx(math.log(2)), "reward_margin": 0.0}


def test_accuracy_and_loss_are_those_of_the_reward_margin() -> None:
    base = read("base", [-10.0] * 12, [-10.0] * 12)
    tuned = read("tuned", [-9.0] * 9 + [-11.0] * 3, [-10.0] * 12)
    scored = scores(tuned, base, beta=0.5)
    assert scored["reward"].to_list() == [0.5] * 9 + [-0.5] * 3
    made = dpo_figures.function(pl.concat([tuned, base]), base, beta=0.5).rows
    found = {(row["metric"], row["of"]): row for row in made.iter_rows(named=True)}
    assert found["reward_accuracy", "tuned"]["value"] == 0.75
    expected = 0.75 * math.log1p(math.exp(-0.5)) + 0.25 * math.log1p(math.exp(0.5))
    assert found["dpo_loss", "tuned"]["value"] == pytest.approx(expected)
    change = found["reward_accuracy_change", "base"]  # from the tuned one, which comes first
    assert (change["axis"], change["value"]) == ("tuned", -0.25)


def test_intervals_resample_prompts_and_differences_are_paired() -> None:
    drawn = np.random.default_rng(0)
    noise = drawn.normal(0, 5, 200)
    base = read("base", [-10.0] * 200, [-10.0] * 200)
    one, other = read("one", (noise - 10).tolist(), [-10.0] * 200), read("other", (noise - 9).tolist(), [-10.0] * 200)
    made = dpo_figures.function(pl.concat([one, other]), base, beta=1.0).rows
    found = {(row["metric"], row["of"]): row for row in made.iter_rows(named=True)}
    alone, change = found["reward_margin", "other"], found["reward_margin_change", "other"]
    assert alone["high"] - alone["low"] > 1
    assert (change["value"], change["low"], change["high"]) == pytest.approx((1, 1, 1))  # the noise is shared
