"""MinHash LSH against the exact Jaccard rule."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from removals import deduplicated

from normloom.near_duplicates.features import Features
from normloom.near_duplicates.simhash import fingerprints, jaccard, pack, shingles
from normloom.tasks.duplicates.deduplicate import Deduplication
from normloom.tasks.duplicates.minhash import bands, find_similar

WORDS = ["river", "stone", "market", "window", "garden", "letter", "winter", "doctor", "bridge", "cousin", "paper"]


def found_in(texts: list[str], threshold: float, recall: float = 0.99) -> list[tuple[int, int, int, float]]:
    packed, features = pack(texts), Features()
    found = find_similar(
        packed, fingerprints(packed, features), features=features, jaccard=threshold, permutations=128, recall=recall
    )
    return found.rows()


def edited(texts: list[str], rng: np.random.Generator) -> list[str]:
    """Return the texts, each followed by some copies with a few words replaced."""
    made = []
    for text in texts:
        made.append(text)
        for _ in range(rng.integers(0, 4)):
            words = text.split()
            for place in rng.integers(0, len(words), rng.integers(1, 5)):
                words[place] = rng.choice(WORDS)
            made.append(" ".join(words))
    return made


def exact(texts: list[str], threshold: float) -> dict[int, tuple[int, float]]:
    """Return the keeper and the similarity of each row that the exact rule removes."""
    sets = [set(shingles(text, Features()).tolist()) for text in texts]
    kept: list[int] = []
    removed = {}
    for row, own in enumerate(sets):
        near = [(len(own & sets[other]) / max(len(own | sets[other]), 1), -other) for other in kept]
        similarity, keeper = max(near, default=(0.0, 0))
        if similarity >= threshold:
            removed[row] = (-keeper, similarity)
        else:
            kept.append(row)
    return removed


def made_texts() -> list[str]:
    rng = np.random.default_rng(3)
    return edited([" ".join(rng.choice(WORDS, 12)) + f" {n}" for n in range(150)], rng)


@pytest.mark.parametrize("threshold", [0.4, 0.6, 0.8])
def test_nearly_all_rows_of_the_exact_rule_are_found(threshold: float) -> None:
    texts = made_texts()
    wanted = exact(texts, threshold)
    found = {row: (keeper, similarity) for row, keeper, _, similarity in found_in(texts, threshold)}
    assert len(wanted) > 40
    assert len(wanted.keys() & found.keys()) / len(wanted) >= 0.98
    assert all(keeper < row and keeper not in found for row, (keeper, _) in found.items())
    for row, (keeper, similarity) in found.items():
        assert similarity == jaccard(texts[row], texts[keeper], Features()) >= threshold
    same = [row for row in wanted if found.get(row) == wanted[row]]
    assert len(same) / len(wanted) >= 0.95


def test_nearly_all_rows_are_found_among_real_prompts(shared_data: Path) -> None:
    path = shared_data / "savacu" / "prompts.parquet"
    if not path.is_file():
        pytest.skip(f"the prompts of SaVaCu are not at {path}")
    prompts = pl.read_parquet(path)["prompt"].head(400).to_list()
    texts = edited([prompt for prompt in prompts if len(prompt.split()) < 60], np.random.default_rng(1))
    wanted, found = exact(texts, 0.7), {row for row, *_ in found_in(texts, 0.7)}
    assert len(wanted) > 40
    assert len(wanted.keys() & found) / len(wanted) >= 0.98


def test_equal_texts_are_always_found() -> None:
    texts = ["Hi", "hi ", "", "  ", "ＨＩ", "other words"]
    assert found_in(texts, 1.0) == [(1, 0, 0, 1.0), (3, 2, 0, 1.0), (4, 0, 0, 1.0)]


def test_bands_are_as_long_as_the_recall_allows() -> None:
    assert bands(0.5, permutations=128, recall=0.99) == (42, 3)  # 1 - (1 - 1/8)^42 = 0.996; four hashes: 0.87
    assert bands(1.0, permutations=128, recall=0.99) == (2, 64)  # one band is too few for datasketch
    assert bands(0.5, permutations=4, recall=0.9) == (4, 1)
    with pytest.raises(ValueError, match=r"less than the recall of 0\.99"):
        bands(0.01, permutations=128, recall=0.99)


def test_the_stage_names_winner_distance_and_jaccard() -> None:
    base = "How can I help a neighbour who lost her job and cannot pay the rent this month?"
    texts = [base, "Who may vote?", base.replace("month", "winter"), base.upper()]
    rows = pl.DataFrame({"row_id": list("abcd"), "prompt": texts, "group": list("xxyx")})
    output = deduplicated(rows, Deduplication(method="minhash", jaccard=0.7))
    assert output.rows["row_id"].to_list() == ["a", "b"]
    ledger = output.dropped.select("row_id", "reason", "winner").rows()
    assert ledger == [("c", "near_duplicate", "a"), ("d", "exact_duplicate", "a")]
    payload = json.loads(output.dropped["payload"][0])
    codes = fingerprints(texts, Features())
    assert payload["distance"] == int(np.bitwise_count(codes[0] ^ codes[2]))
    assert payload["jaccard"] == pytest.approx(jaccard(texts[0], texts[2], Features()))
    apart = deduplicated(rows, Deduplication(method="minhash", jaccard=0.7), within="group")
    assert apart.rows["row_id"].to_list() == ["a", "b", "c"]


def test_a_threshold_that_no_bands_reach_is_refused() -> None:
    with pytest.raises(ValidationError, match="less than the recall"):
        Deduplication(method="minhash", jaccard=0)
    assert Deduplication(jaccard=0).method == "simhash"


def test_what_is_found_does_not_depend_on_the_process() -> None:
    script = (
        "import sys; sys.path[:0] = ['tests/tasks/duplicates', 'tests']\n"
        "from test_minhash import found_in, made_texts\n"
        "print(found_in(made_texts(), 0.6))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "99"}
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{found_in(made_texts(), 0.6)}\n"
