"""Pairs of a prompt's replies, their audit, and pairs of a released table."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from normloom.core.errors import SourceError
from normloom.schemas.training.preference_tables import CONTENT, FORMAT, HELD_OUT, TRAIN
from normloom.tasks.preferences.checks import check_pairs
from normloom.tasks.preferences.pairs import Pairing, published_pairs
from normloom.tasks.preferences.shortcuts import auc_over_groups, shortcuts


def pairs(number: int, *, format_share: float, split: str = TRAIN, method: str = "quality") -> pl.DataFrame:
    drawn = np.random.default_rng(number)
    return pl.DataFrame(
        {
            "dialogue": [f"d{place // 2}" for place in range(number)],
            "chosen_words": drawn.integers(10, 90, number),
            "rejected_words": drawn.integers(10, 90, number),
            "chosen_model": drawn.choice(["a", "b"], number),
            "rejected_model": drawn.choice(["a", "b"], number),
            "rejected_kind": [FORMAT if place < format_share * number else CONTENT for place in range(number)],
            "method": method,
            "split": split,
            "margin": drawn.uniform(0.1, 0.8, number),
            "weight": drawn.uniform(0.5, 0.7, number),
        }
    )


def areas(rows: pl.DataFrame) -> dict[str, tuple[float, float, float]]:
    made = shortcuts.function(rows).rows
    return {row["of"]: (row["value"], row["low"], row["high"]) for row in made.iter_rows(named=True)}


def test_a_format_that_gives_the_rejected_side_away_is_found() -> None:
    found = areas(pairs(400, format_share=0.77))
    value, low, high = found[FORMAT]
    assert value == pytest.approx(0.5 + 0.77 / 2)
    assert low < value < high
    for feature in ("length", "generator"):  # drawn without regard to the side
        value, low, high = found[feature]
        assert value < 0.6
        assert low < 0.5 < high + 0.05


def test_length_is_found_even_if_both_the_short_and_the_long_are_rejected() -> None:
    rows = pairs(300, format_share=0).with_columns(
        chosen_words=pl.Series([50 + place % 5 for place in range(300)]),
        rejected_words=pl.Series([(10 if place % 2 else 90) + place % 5 for place in range(300)]),
    )
    assert areas(rows)["length"][0] > 0.99


def test_few_prompts_have_no_figure() -> None:
    made = shortcuts.function(pairs(8, format_share=0.5)).rows
    assert made["value"].null_count() == 3
    assert set(made["undefined"]) == {"fewer than 5 prompts"}


def test_the_interval_resamples_prompts() -> None:
    drawn = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 10)
    truth, scores = drawn.random(400) < 0.5, drawn.random(40)[groups].round(1)
    value, low, high = auc_over_groups(truth, scores, groups)
    assert value == pytest.approx(roc_auc_score(truth, scores))
    weights = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=1000)
    slow = [roc_auc_score(truth, scores, sample_weight=one[groups]) for one in weights]
    assert (low, high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])))


def test_checks_say_what_was_found() -> None:
    rows = pl.concat([pairs(20, format_share=0), pairs(4, format_share=0, split=HELD_OUT)])
    found = {row["check"]: row for row in check_pairs.function(rows).rows.iter_rows(named=True)}
    assert (found["C2"]["passed"], found["C2"]["found"]) == (True, "train 20, held_out 4")
    assert (found["C3"]["passed"], found["C3"]["found"]) == (False, "2 of 10 prompts are")
    assert not found["C9"]["passed"]


def released(**columns: list[object]) -> pl.DataFrame:
    said = [{"role": "user", "content": "Is it safe?"}]
    rows = {
        "row_id": ["a", "b", "c", "d"],
        "prompt_id": ["p", "p", "p", "q"],
        "messages": [[*said, {"role": "assistant", "content": text}] for text in ("Yes.", "No.", "Go.", "Alone.")],
        "response": ["Yes.", "No.", "Yes.", "Alone."],
        "alignment": ["aligned", "misaligned", "misaligned", "aligned"],
        "generator": ["g"] * 4,
        "split": ["train", "train", "train", "test"],
    }
    return pl.DataFrame({**rows, **columns})


def test_aligned_and_misaligned_responses_become_pairs() -> None:
    made = published_pairs.function(released(), Pairing())
    [pair] = made.rows.iter_rows(named=True)
    assert (pair["chosen"], pair["rejected"], pair["parents"]) == ("Yes.", "No.", ["a", "b"])
    assert pair["messages"] == [{"role": "user", "content": "Is it safe?"}]
    assert (pair["split"], pair["margin"], pair["weight"], pair["rejected_kind"]) == (TRAIN, None, 1.0, CONTENT)
    assert made.dropped.select("row_id", "reason").rows() == [("a", "same_text"), ("d", "one_sided")]
    assert made.attempts == 3


def test_a_limit_takes_the_first_prompts_that_have_pairs() -> None:
    rows = pl.concat([released(), released(row_id=["e", "f", "g", "h"], prompt_id=["r", "r", "r", "s"])])
    made = published_pairs.function(rows, Pairing(), limit=1)
    assert set(made.rows["prompt_id"]) == {"p"}
    assert made.dropped.filter(reason="limit")["row_id"].to_list() == ["e", "f", "g"]


def test_the_test_split_of_a_release_is_held_out() -> None:
    made = published_pairs.function(released(split=["test"] * 4), Pairing())
    assert made.rows["split"].to_list() == [HELD_OUT]


def test_a_release_without_splits_is_split_by_its_prompts() -> None:
    rows = released(prompt_id=[f"p{number}" for number in (0, 0, 1, 1)], alignment=["aligned", "misaligned"] * 2)
    args = Pairing(held_out=0.5)
    made = published_pairs.function(rows.with_columns(response=pl.col("row_id")).drop("split"), args).rows
    assert dict(made.select("prompt_id", "split").iter_rows()) == {name: args.split(name) for name in ("p0", "p1")}


def test_a_table_without_sides_is_refused() -> None:
    with pytest.raises(SourceError, match="no column 'alignment': pairs are made of prompt_id, messages"):
        published_pairs.function(released().drop("alignment"), Pairing())


def test_held_out_prompts_depend_on_the_prompt_and_the_seed_alone() -> None:
    names = [f"prompt {number}" for number in range(2000)]
    held = [name for name in names if Pairing(held_out=0.1).split(name) == HELD_OUT]
    assert 150 < len(held) < 250
    assert held == [name for name in reversed(names) if Pairing(held_out=0.1).split(name) == HELD_OUT][::-1]
    assert held != [name for name in names if Pairing(held_out=0.1, seed=7).split(name) == HELD_OUT]
