"""Sweeps of thresholds equal what the real stages do at each of them."""

import random
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
import pytest
from hand_made import ANY, TAXONOMIES, Answerer, ask_and_decide, carry_out
from removals import deduplicated

from normloom.core.errors import ContractError
from normloom.near_duplicates.features import Features
from normloom.near_duplicates.simhash import fingerprints
from normloom.schemas import tables
from normloom.schemas.template import Template
from normloom.tasks.duplicates.deduplicate import Deduplication
from normloom.tasks.duplicates.duplicates import expected_chance_pairs
from normloom.tasks.duplicates.sweep import sweep_delta, sweep_tau
from normloom.tasks.prompts.classify import Asking, Labelling, classify, score_labels
from normloom.testing.toy import SCRIPTED

ASK = Template(name="ask", sections={"instruction": "Label.", "context": "$prompt", "question": "$label"})
DELTAS = (0.05, 0.3, 0.5, 0.7, 0.95)
SENTENCE = "who may vote in the town hall when rent is due and neighbours help a child across the road at night"
WORDS = SENTENCE.split()


def labelled(delta: float) -> pl.DataFrame:
    """Prompts as the stage `classify` labels them at a delta, by a model of random mind."""
    texts = [f"prompt {number}" for number in range(40)]
    prompts = pl.DataFrame({"row_id": texts, "source_row": range(40), "prompt": texts, "origin": ["source"] * 40})
    nothing = {name: pl.lit(None, dtype=tables.PROMPTS.columns[name]) for name in ("history", "reference")}
    prompts = prompts.with_columns(**nothing)

    def shares(context: str, question: str) -> tuple[float, float]:
        yes = round(random.Random(context + question).random(), 1) * 0.98 + 0.01
        return yes, 1 - yes

    asking = score_labels(ANY, Asking(template=ASK), SCRIPTED, taxonomies=TAXONOMIES)
    stage = classify(ANY, Labelling(delta=delta), asking, taxonomies=TAXONOMIES)
    return ask_and_decide(asking, stage, prompts, model=Answerer(shares)).rows


def swept(rows: pl.DataFrame) -> dict[tuple[str, str, str], float]:
    stage = sweep_delta(ANY, taxonomies=TAXONOMIES, deltas=DELTAS)
    made = carry_out(stage, rows).rows
    assert set(made["slice_by"]) == {"delta"}
    return {row[:3]: row[3] for row in made.select("metric", "axis", "slice", "value").iter_rows()}


def test_each_delta_keeps_what_the_stage_keeps_at_it() -> None:
    found = swept(labelled(0.5))
    for delta in DELTAS:
        kept = labelled(delta).select("row_id", "labels").explode("labels").unnest("labels").drop_nulls("label")
        for taxonomy in TAXONOMIES:
            own = kept.filter(pl.col("dimension") == taxonomy.dimension)
            assert found["labels_kept", taxonomy.dimension, f"{delta:.2f}"] == own.height
            assert found["prompts_labelled", taxonomy.dimension, f"{delta:.2f}"] == own["row_id"].n_unique()
    assert found["labels_kept", "safety", "0.05"] > found["labels_kept", "safety", "0.50"] > 0


def test_labels_that_an_expansion_was_drawn_for_stay() -> None:
    rows = labelled(0.5)
    drawn = rows.head(3).with_columns(
        labels=pl.lit(
            [{"dimension": "value", "label": "value/wealth", "probability": None}], dtype=rows["labels"].dtype
        ),
        probabilities=pl.lit([], dtype=pl.List(pl.Float32)),
    )
    without, found = swept(rows), swept(pl.concat([rows, drawn]))
    for key, value in found.items():
        assert value - without[key] == (3 if key[1] == "value" else 0)


def test_probabilities_that_were_not_asked_are_not_kept() -> None:
    nothing = labelled(0.5).with_columns(probabilities=pl.lit([None] * 5, dtype=pl.List(pl.Float32)))
    assert set(swept(nothing).values()) == {0}


def test_probabilities_of_other_taxonomies_are_refused() -> None:
    with pytest.raises(ContractError, match="5 values, one for each label"):
        swept(labelled(0.5).with_columns(pl.col("probabilities").list.head(4)))


def prompts(seed: int, rows: int = 150) -> pl.DataFrame:
    """Prompts many of which differ in a word or two, some in nothing but case, in two groups."""
    rng = random.Random(seed)
    texts: list[str] = []
    for _ in range(rows):
        words = rng.choice(texts).split() if texts and rng.random() < 0.7 else rng.choices(WORDS, k=12)
        if rng.random() < 0.8:
            words[rng.randrange(len(words))] = rng.choice(WORDS)
        texts.append(" ".join(words).upper() if rng.random() < 0.2 else " ".join(words))
    groups = [rng.choice("xy") for _ in texts]
    return pl.DataFrame({"row_id": [str(number) for number in range(rows)], "prompt": texts, "group": groups})


def tried(rows: pl.DataFrame, **settings: Any) -> dict[tuple[str, int], float]:
    made = carry_out(sweep_tau([ANY], **settings), rows).rows
    return {(metric, int(tau)): value for metric, tau, value in made.select("metric", "slice", "value").iter_rows()}


@pytest.mark.parametrize(("jaccard", "alike"), [(0.0, 0.8), (0.5, 0.8), (0.5, 1.0), (0.9, 0.6)])
@pytest.mark.parametrize("seed", range(3))
def test_each_tau_removes_what_the_stage_removes_at_it(seed: int, jaccard: float, alike: float) -> None:
    rows = prompts(seed)
    found = tried(rows, jaccard=jaccard, alike=alike)
    for tau in range(1, 17):
        output = deduplicated(rows, Deduplication(tau=tau, jaccard=jaccard, alike=alike))
        assert found["removed", tau] == output.dropped.height
        assert found["chance_pairs", tau] == output.metrics["expected_chance_pairs"]
    assert found["removed", 16] >= found["removed", 1] > 0
    assert found["removed", 16] > found["removed", 1] or jaccard > alike  # where one similarity decides at any tau


def test_pairs_are_those_of_all_codes() -> None:
    rows = prompts(1)
    codes = [int(code) for code in fingerprints(rows["prompt"].to_list(), Features())]
    distances = np.array([(one ^ other).bit_count() for one, other in combinations(codes, 2)])
    found = tried(rows, taus=(1, 4, 16, 40))
    assert {tau: found["pairs", tau] for tau in (1, 4, 16, 40)} == {
        tau: (distances < tau).sum() for tau in (1, 4, 16, 40)
    }


def test_groups_are_kept_apart() -> None:
    rows = prompts(2)
    found = tried(rows, within="group", taus=(3, 10))
    parts = rows.partition_by("group")
    for tau in (3, 10):
        removed = [deduplicated(part, Deduplication(tau=tau)).dropped.height for part in parts]
        assert found["removed", tau] == sum(removed)
        assert found["chance_pairs", tau] == sum(expected_chance_pairs(part.height, tau) for part in parts)


def test_prompts_of_other_conversations_are_kept_apart() -> None:
    rows = prompts(2).with_columns(history=pl.concat_list("group"))
    removed = deduplicated(rows, Deduplication()).dropped.height
    assert tried(rows)["removed", 10] == removed < tried(rows.drop("history"))["removed", 10]


def test_stored_codes_are_taken() -> None:
    stored = deduplicated(prompts(0), Deduplication(tau=4, jaccard=0)).rows
    found = tried(stored, jaccard=0)
    assert [found["removed", tau] for tau in (1, 2, 3, 4)] == [0, 0, 0, 0]
    assert found == tried(stored.drop("fingerprint"), jaccard=0)
    alike = stored.with_columns(fingerprint=pl.lit(7, dtype=pl.UInt64))
    assert tried(alike, jaccard=0)["removed", 1] == alike.height - 1
