"""The split stage: shares, clusters that hold together, leakage as measured."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hand_made import ANY
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from report_tables import given as rows_given

from normloom.core.errors import ContractError
from normloom.core.rows.blocks import Blocks
from normloom.core.table import Manifest
from normloom.store.store import Store
from normloom.tasks.duplicates.split import SPLITS, Splitting, in_order, prompt_splits, split
from normloom.tasks.rejection.resample import ALIGNMENTS
from normloom.testing import inline

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


@dataclass(frozen=True)
class Made:
    """Rows with their splits, the splits by prompt, and what was measured."""

    rows: pl.DataFrame
    prompts: pl.DataFrame
    metrics: Mapping[str, float]


DEFAULT = Splitting()


def made(rows: pl.DataFrame, args: Splitting = DEFAULT) -> Made:
    chosen = prompt_splits.function(rows, args)
    return Made(split.function(rows, chosen.rows), chosen.rows, chosen.metrics)


def test_shares_are_met_and_rows_keep_their_order() -> None:
    rows = table(prompts(500), copies=3)
    output = made(rows)
    assert output.rows.columns == ["row_id", "prompt_id", "prompt", "split", "cluster"]
    assert output.rows["row_id"].to_list() == rows["row_id"].to_list()
    assert [output.metrics[f"prompts_{name}"] for name in SPLITS] == [400, 50, 50]
    assert output.rows.group_by("prompt_id").agg(pl.col("split").n_unique())["split"].max() == 1
    assert output.metrics["leakage"] == 0


def test_each_prompt_stands_once_with_all_rows_that_it_came_from() -> None:
    rows = table(prompts(20), copies=3)
    output = made(rows).prompts
    assert output["prompt_id"].to_list() == rows["prompt_id"].unique(maintain_order=True).to_list()
    assert output["parents"].to_list() == [[f"r{3 * n + k}" for k in range(3)] for n in range(20)]


def test_rows_of_a_prompt_may_stand_apart() -> None:
    rows = table(prompts(20), copies=3)
    apart = pl.concat([rows.gather_every(3, offset) for offset in (1, 0, 2)])
    output = made(apart).prompts
    assert output["prompt_id"].to_list() == rows["prompt_id"].unique(maintain_order=True).to_list()
    assert output["parents"].to_list() == [[f"r{3 * n + k}" for k in (1, 0, 2)] for n in range(20)]


def test_rows_in_blocks_are_as_those_in_one_frame() -> None:
    rows = table(prompts(20), copies=3)
    whole = prompt_splits.function(rows, Splitting())
    for size in (1, 2, 4, 1000):
        assert prompt_splits.function(Blocks.of(rows, size), Splitting()).rows.equals(whole.rows)


def test_clusters_never_straddle_splits() -> None:
    output = made(table(families(60, 5)))
    spread = output.rows.group_by("cluster").agg(pl.col("split").n_unique(), pl.len(), pl.col("prompt_id").min())
    assert spread["split"].max() == 1
    assert spread["len"].to_list() == [5] * 60
    assert spread["cluster"].to_list() == spread["prompt_id"].to_list()
    assert [output.metrics[f"prompts_{name}"] for name in SPLITS] == [240, 30, 30]
    assert (output.metrics["clusters"], output.metrics["largest_cluster"]) == (60, 5)


def test_leakage_is_seen_when_clusters_are_cut_too_narrow() -> None:
    texts = families(60, 5)
    assert made(table(texts), Splitting(cluster_tau=1, leakage_tau=14)).metrics["leakage"] > 0.3
    assert made(table(texts)).metrics["leakage"] == 0


def test_the_seed_decides_and_row_order_does_not() -> None:
    rows = table(prompts(200))
    first = made(rows).rows
    shuffled = made(rows.sample(fraction=1, shuffle=True, seed=1)).rows
    assert shuffled.sort("row_id").equals(first.sort("row_id"))
    assert not made(rows, Splitting(seed=43)).rows.sort("row_id").equals(first.sort("row_id"))


def test_one_cluster_of_everything_goes_to_train() -> None:
    assert made(table(families(1, 8))).rows["split"].unique().to_list() == ["train"]


@settings(max_examples=30)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=30), st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.5, 0), (1, 0, 0)])
)
def test_shares_are_as_near_as_the_clusters_allow(sizes: list[int], shares: tuple[float, float, float]) -> None:
    texts = [text + "!" * k for text, size in zip(prompts(len(sizes)), sizes, strict=True) for k in range(size)]
    train, validation, test = shares
    output = made(table(texts), Splitting(train=train, validation=validation, test=test))
    for name, share in zip(SPLITS, shares, strict=True):
        off = abs(output.metrics[f"prompts_{name}"] - share * len(texts))
        assert off <= output.metrics["largest_cluster"]


def test_no_rows() -> None:
    output = made(table([]))
    assert output.rows.is_empty()
    assert output.metrics["leakage"] == 0


def test_rows_that_cannot_be_split_are_refused() -> None:
    rows = table(["one", "two"])
    with pytest.raises(ContractError, match="'prompt' has nulls"):
        made(rows.with_columns(prompt=pl.lit(None, pl.String)))
    with pytest.raises(ContractError, match="'p' stands for more than one prompt"):
        made(rows.with_columns(prompt_id=pl.lit("p")))


@pytest.mark.parametrize("fields", [{"train": 0.9}, {"test": -0.1, "train": 1.0}, {"cluster_tau": 0}, {"shares": 1}])
def test_arguments_that_make_no_sense_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Splitting(**fields)


def test_splits_are_chosen_over_all_prompts_and_handed_on_in_parts() -> None:
    chosen = prompt_splits(ANY, Splitting())
    assert (chosen.name, chosen.part_rows, chosen.reads) == ("prompt_splits", None, ("prompt_id", "history", "prompt"))
    handed = split(ANY, chosen)
    assert (handed.name, handed.sides, handed.looks_up) == ("split", (chosen,), ("prompt_id",))


def test_new_prompts_leave_parts_whose_prompts_stay_in_their_split(tmp_path: Path) -> None:
    texts, store = prompts(205), Store(tmp_path)

    def build(count: int) -> tuple[Manifest, pl.DataFrame]:
        selected = rows_given("select", "SELECTED", *(response(text, k) for text in texts[:count] for k in ALIGNMENTS))
        table = inline.made("toy", [split(selected, prompt_splits(selected, DEFAULT), part_rows=20)], store)["split"]
        return table, store.scan(table.ref).collect()

    _, before = build(200)
    table, after = build(205)
    assert table.work is not None
    changed = after.with_row_index().join(before, on=["row_id", "split", "cluster"], how="anti")
    assert 1 < table.work.parts < len(table.parts) / 2
    assert (changed["index"] // 20).n_unique() == table.work.parts


def response(prompt: str, alignment: str) -> dict[str, Any]:
    return {
        "prompt_id": prompt,
        "prompt": prompt,
        "generator": "g",
        "round": 0,
        "response": "yes",
        "alignment": alignment,
        "checks": [],
        "margin": 0.5,
    }


def test_names_of_splits_are_put_in_order() -> None:
    assert in_order({"other", "test", "train", "dev"}) == ["train", "test", "dev", "other"]
