"""The split stage: shares, clusters that hold together, leakage as measured."""

import random

import polars as pl
import pytest
from hand_made import ANY
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from normloom.core.contract import Contract
from normloom.core.errors import ContractError
from normloom.tasks.duplicates.split import SPLITS, Splitting, split

WORDS = [
    "river",
    "stone",
    "market",
    "child",
    "elder",
    "winter",
    "harvest",
    "letter",
    "doctor",
    "promise",
    "border",
    "temple",
    "bread",
    "school",
    "debt",
    "rain",
]


def prompts(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [f"{' '.join(rng.choices(WORDS, k=9))} {rng.getrandbits(80):x}" for _ in range(n)]


def table(texts: list[str], copies: int = 1) -> pl.DataFrame:
    ids = [f"p{n:05d}" for n in range(len(texts)) for _ in range(copies)]
    return pl.DataFrame(
        {
            "row_id": [f"r{n}" for n in range(len(ids))],
            "parents": [["x"]] * len(ids),
            "prompt_id": ids,
            "prompt": [text for text in texts for _ in range(copies)],
        },
        schema={"row_id": pl.String, "parents": pl.List(pl.String), "prompt_id": pl.String, "prompt": pl.String},
    )


def families(n: int, size: int) -> list[str]:
    return [text + "!" * k for text in prompts(n) for k in range(size)]


def test_shares_are_met_and_rows_come_split_by_split_in_their_order() -> None:
    rows = table(prompts(500), copies=3)
    output = split.function(rows, Splitting())
    assert output.rows.columns == ["row_id", "prompt_id", "prompt", "split", "cluster"]
    assert output.rows["split"].unique(maintain_order=True).to_list() == list(SPLITS)
    for _, part in output.rows.group_by("split"):
        assert part["row_id"].to_list() == [name for name in rows["row_id"] if name in set(part["row_id"])]
    assert [output.metrics[f"prompts_{name}"] for name in SPLITS] == [400, 50, 50]
    assert output.rows.group_by("prompt_id").agg(pl.col("split").n_unique())["split"].max() == 1
    assert output.metrics["leakage"] == 0


def test_clusters_never_straddle_splits() -> None:
    output = split.function(table(families(60, 5)), Splitting())
    spread = output.rows.group_by("cluster").agg(pl.col("split").n_unique(), pl.len(), pl.col("prompt_id").min())
    assert spread["split"].max() == 1
    assert spread["len"].to_list() == [5] * 60
    assert spread["cluster"].to_list() == spread["prompt_id"].to_list()
    assert [output.metrics[f"prompts_{name}"] for name in SPLITS] == [240, 30, 30]
    assert (output.metrics["clusters"], output.metrics["largest_cluster"]) == (60, 5)


def test_leakage_is_seen_when_clusters_are_cut_too_narrow() -> None:
    texts = families(60, 5)
    loose = split.function(table(texts), Splitting(cluster_tau=1, leakage_tau=14))
    assert loose.metrics["leakage"] > 0.3
    assert split.function(table(texts), Splitting()).metrics["leakage"] == 0


def test_the_seed_decides_and_row_order_does_not() -> None:
    rows = table(prompts(200))
    first = split.function(rows, Splitting()).rows
    shuffled = split.function(rows.sample(fraction=1, shuffle=True, seed=1), Splitting()).rows
    assert shuffled.sort("row_id").equals(first.sort("row_id"))
    other = split.function(rows, Splitting(seed=43)).rows
    assert not other.sort("row_id").equals(first.sort("row_id"))


def test_one_cluster_of_everything_goes_to_train() -> None:
    output = split.function(table(families(1, 8)), Splitting())
    assert output.rows["split"].unique().to_list() == ["train"]


@settings(max_examples=30)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=30), st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.5, 0), (1, 0, 0)])
)
def test_shares_are_as_near_as_the_clusters_allow(sizes: list[int], shares: tuple[float, float, float]) -> None:
    texts = [text + "!" * k for text, size in zip(prompts(len(sizes)), sizes, strict=True) for k in range(size)]
    train, validation, test = shares
    output = split.function(table(texts), Splitting(train=train, validation=validation, test=test))
    for name, share in zip(SPLITS, shares, strict=True):
        off = abs(output.metrics[f"prompts_{name}"] - share * len(texts))
        assert off <= output.metrics["largest_cluster"]


def test_no_rows() -> None:
    output = split.function(table([]), Splitting())
    assert output.rows.is_empty()
    assert output.metrics["leakage"] == 0


def test_rows_that_cannot_be_split_are_refused() -> None:
    rows = table(["one", "two"])
    with pytest.raises(ContractError, match="'prompt' has nulls"):
        split.function(rows.with_columns(prompt=pl.lit(None, pl.String)), Splitting())
    with pytest.raises(ContractError, match="'p' stands for more than one prompt"):
        split.function(rows.with_columns(prompt_id=pl.lit("p")), Splitting())


@pytest.mark.parametrize("fields", [{"train": 0.9}, {"test": -0.1, "train": 1.0}, {"cluster_tau": 0}, {"shares": 1}])
def test_arguments_that_make_no_sense_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Splitting(**fields)


def test_the_stage_takes_all_rows_at_once() -> None:
    stage = split(ANY, Splitting(), contract=Contract(columns={"prompt": pl.String()}))
    assert (stage.name, stage.part_rows, stage.function) == ("split", None, split.called)
