"""The deduplication stage: what stays, what goes, and what the ledger says."""

import json
import random
from itertools import product
from pathlib import Path

import polars as pl
import pytest
from hand_made import ANY
from pydantic import ValidationError
from removals import deduplicated

from normloom.core.contract import Contract
from normloom.core.errors import ConfigError, ContractError
from normloom.core.stage import Output, Stage
from normloom.near_duplicates.features import Features
from normloom.store.store import Store
from normloom.tasks.duplicates.deduplicate import Deduplication, deduplicate
from normloom.tasks.duplicates.duplicates import duplicates, expected_chance_pairs
from normloom.testing.toy import Words, read_words, runner

BASE = "How can I help a neighbour who lost her job and cannot pay the rent this month?"


def table(*prompts: str | None) -> pl.DataFrame:
    ids = [f"r{n}" for n in range(len(prompts))]
    return pl.DataFrame(
        {
            "row_id": ids,
            "parents": [[f"p{n}"] for n in range(len(prompts))],
            "prompt": prompts,
            "domain": ["care"] * len(ids),
        },
        schema_overrides={"prompt": pl.String, "row_id": pl.String, "domain": pl.String, "parents": pl.List(pl.String)},
    )


def test_duplicates_go_and_name_their_winner() -> None:
    rows = table(BASE, "What is the tallest tree?", BASE.upper(), BASE.replace("job", "jobs"), "Who may vote?")
    output = deduplicated(rows, Deduplication())
    assert output.rows["row_id"].to_list() == ["r0", "r1", "r4"]
    assert output.rows.schema == {
        "row_id": pl.String,
        "prompt": pl.String,
        "domain": pl.String,
        "fingerprint": pl.UInt64,
    }
    ledger = output.dropped.select("row_id", "reason", "winner").rows()
    assert ledger == [("r2", "exact_duplicate", "r0"), ("r3", "near_duplicate", "r0")]
    exact, near = map(json.loads, output.dropped["payload"])
    assert exact == {"prompt": BASE.upper(), "domain": "care", "distance": 0, "jaccard": 1.0}
    assert 0 < near["distance"] < 10
    assert 0.5 <= near["jaccard"] < 1
    assert rows.height == output.rows.height + output.dropped.height + output.quarantined.height
    assert output.metrics["duplicates"] == 2
    assert output.metrics["share"] == pytest.approx(0.4)


def test_the_earlier_row_wins() -> None:
    variant = BASE.replace("job", "jobs")
    for first, second in ((BASE, variant), (variant, BASE)):
        output = deduplicated(table(first, second), Deduplication())
        assert output.rows["prompt"].to_list() == [first]


def test_jaccard_turns_a_near_code_into_a_candidate_only() -> None:
    coins = "How do curators decide which coins from a buried hoard to display?"
    rows = table(coins, "Two sailors, a parrot and a storm: write a five-minute radio sketch.")  # 16 bits apart
    assert deduplicated(rows, Deduplication(jaccard=0, tau=17)).rows.height == 1
    assert deduplicated(rows, Deduplication(jaccard=0.5, tau=17)).rows.height == 2


def test_a_table_without_rows_and_one_without_duplicates() -> None:
    empty = deduplicated(table(), Deduplication())
    assert (empty.rows.height, empty.dropped.height, empty.metrics["share"]) == (0, 0, 0)
    assert empty.rows.schema["fingerprint"] == pl.UInt64
    assert deduplicated(table("one", "another matter"), Deduplication()).dropped.height == 0


@pytest.mark.parametrize("known", [0, 20])
@pytest.mark.parametrize("within", [None, "domain"])
def test_a_lazy_table_is_searched_like_one_in_memory(known: int, within: str | None, tmp_path: Path) -> None:
    prompts = [f"{BASE} Say it in {n % 30} words, please." if n % 3 else BASE.upper() for n in range(60)]
    rows = table(*prompts).with_columns(domain=pl.Series([f"d{n % 2}" for n in range(60)]))
    rows.write_parquet(tmp_path / "rows.parquet", row_group_size=16)
    before = deduplicated(rows.head(known), Deduplication(), within=within).rows if known else None
    whole = duplicates.function(rows[known:], Deduplication(), before, within=within)
    lazy = pl.scan_parquet(tmp_path / "rows.parquet").slice(known)
    read = duplicates.function(lazy, Deduplication(), before, within=within)
    assert read.rows.equals(whole.rows)
    assert read.metrics == whole.metrics
    assert set(read.rows["reason"]) == {"exact_duplicate", "near_duplicate"}


def test_another_column_can_hold_the_text() -> None:
    rows = table("same", "same").with_columns(question=pl.Series(["this", "that is something else"]))
    assert deduplicated(rows, Deduplication(), column="question").rows.height == 2


def test_a_null_text_is_refused() -> None:
    with pytest.raises(ContractError, match="'prompt' has nulls"):
        deduplicated(table("a", None), Deduplication())


def test_blocks_are_refused_if_ray_is_not_up() -> None:
    with pytest.raises(ConfigError, match="block needs Ray"):
        deduplicated(table("one", "another"), Deduplication(block=1))


def test_chance_pairs() -> None:
    assert expected_chance_pairs(2, 64) == pytest.approx(1)
    assert expected_chance_pairs(2, 1) == pytest.approx(2**-64)
    assert expected_chance_pairs(400_000, 11) == pytest.approx(800, rel=0.1)  # measured: METHODS.md, section 1
    assert expected_chance_pairs(0, 10) == 0


@pytest.mark.parametrize("fields", [{"tau": 0}, {"tau": 18}, {"jaccard": 1.1}, {"distance": 3}])
def test_arguments_that_make_no_sense_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Deduplication(**fields)


def test_duplicates_are_found_in_all_inputs_in_order_and_taken_out_in_parts() -> None:
    contract = Contract(columns={"prompt": pl.String()})
    none = duplicates(ANY, Deduplication())
    first, second = (deduplicate(ANY, none, contract=contract, name=name) for name in ("first", "second"))
    found = duplicates([first, second], Deduplication(tau=5))
    stage = deduplicate([first, second], found, contract=contract)
    assert isinstance(found, Stage)
    assert (found.name, found.inputs, found.part_rows) == ("duplicates", (first, second), None)
    assert (stage.name, stage.inputs, stage.sides) == ("deduplicate", (first, second), (found,))
    assert stage.function is deduplicate.called


def test_rows_with_the_column_by_which_duplicates_are_looked_up_are_refused() -> None:
    rows = table(BASE)
    found = duplicates.function(rows, Deduplication()).rows
    with pytest.raises(ContractError, match="rows have a column 'duplicate_id'"):
        deduplicate.function(rows.with_columns(duplicate_id=pl.lit("r0")), found)


def test_columns_can_be_left_out_of_what_stays_and_are_told_in_the_ledger() -> None:
    rows = table(BASE, BASE)
    found = duplicates.function(rows, Deduplication())
    output = deduplicate.function(rows, found.rows, without=("domain",))
    assert output.rows.columns == ["row_id", "prompt", "fingerprint"]
    assert json.loads(output.dropped["payload"][0])["domain"] == "care"


def test_only_rows_of_one_group_are_compared() -> None:
    variant = BASE.replace("job", "jobs")
    rows = table(BASE, BASE, variant, variant, "Who may vote?").with_columns(domain=pl.Series(list("abbac")))
    output = deduplicated(rows, Deduplication(), within="domain")
    assert output.rows["row_id"].to_list() == ["r0", "r1", "r4"]
    assert output.dropped.select("row_id", "winner").rows() == [("r2", "r1"), ("r3", "r0")]
    assert (
        output.rows["fingerprint"].to_list()
        == deduplicated(rows[[0, 4]], Deduplication()).rows["fingerprint"].gather([0, 0, 1]).to_list()
    )
    assert output.metrics["expected_chance_pairs"] == 2 * expected_chance_pairs(2, 10)
    assert deduplicated(rows.clear(), Deduplication(), within="domain").rows.is_empty()


@pytest.mark.parametrize("within", [None, "domain"])
@pytest.mark.parametrize("method", ["simhash", "minhash"])
def test_known_rows_stay_and_new_ones_give_way_to_them(method: str, within: str | None) -> None:
    """The outcome is that for both tables together."""
    arguments = Deduplication(method=method)
    variants = [BASE.replace("job", word) for word in ("jobs", "work", "house", "way")]
    all_rows = table(BASE, "Who may vote?", *variants, "Who may vote? ", "What is the tallest tree?", BASE, "who")
    all_rows = all_rows.with_columns(domain=pl.Series(list("ababaababb")))
    known = deduplicated(all_rows.head(4), arguments, within=within).rows
    together = deduplicated(all_rows, arguments, within=within)
    apart = deduplicated(all_rows[4:], arguments, known, within=within)
    assert apart.rows.equals(together.rows.filter(pl.col("row_id").is_in(known["row_id"].implode()).not_()))
    assert apart.dropped.equals(together.dropped.filter(pl.col("row_id").is_in(["r1", "r2", "r3"]).not_()))
    assert set(apart.dropped["winner"]) & set(known["row_id"])
    assert apart.dropped.height >= 3


@pytest.mark.parametrize(("tau", "alike"), [(8, 1), (8, 0.75), (1, 0.75)])
@pytest.mark.parametrize("size", [1, 4, 25])
def test_batches_each_beside_the_rows_kept_so_far_give_what_the_whole_gives(size: int, tau: int, alike: float) -> None:
    words = ["red", "fox", "sea", "old", "tall"]
    rows = table(*(f"{BASE[:30]} {a} {b} {a if n % 3 else b}" for n, (a, b) in enumerate(product(words, words))))
    arguments = Deduplication(tau=tau, alike=alike)
    whole = deduplicated(rows, arguments)
    kept = deduplicated(rows[:0], arguments).rows
    dropped = []
    for batch in rows.iter_slices(size):
        output = deduplicated(batch, arguments, kept)
        kept = pl.concat([kept, output.rows])
        dropped.append(output.dropped)
    assert kept.equals(whole.rows)
    assert pl.concat(dropped).equals(whole.dropped)
    assert 3 < kept.height < rows.height - 3


def test_pairs_of_known_rows_are_no_chance_pairs() -> None:
    rows = table(*"abcdefg")
    known = deduplicated(rows.head(4), Deduplication()).rows
    metrics = deduplicated(rows[4:], Deduplication(), known).metrics
    assert metrics["expected_chance_pairs"] == pytest.approx(15 * expected_chance_pairs(2, 10))  # 21 pairs less 6
    assert deduplicated(rows[:0], Deduplication(), known).rows.is_empty()


def test_known_codes_of_other_features_are_refused() -> None:
    known = deduplicated(table(BASE), Deduplication(features=Features(char_ngrams=(3,)))).rows
    with pytest.raises(ContractError, match="made from other features"):
        deduplicated(table("Who may vote?"), Deduplication(), known)


def test_new_rows_beside_a_published_table(tmp_path: Path) -> None:
    loom, contract = runner(Store(tmp_path)), Contract(columns={"prompt": pl.String(), "fingerprint": pl.UInt64()})

    def prompts(name: str, *texts: str) -> Stage:
        return Stage(
            name=name,
            function=read_prompts,
            arguments=Words(words=texts),
            contract=Contract(columns={"prompt": pl.String()}),
        )

    first, second = (
        prompts("first", BASE, "Who may vote?"),
        prompts("second", "who MAY vote?", "What is the tallest tree?"),
    )
    sources = [loom.run(stage, [], [])[0].ref for stage in (first, second)]
    none = loom.run(among_old := duplicates(first, Deduplication(), name="among_old"), sources[:1], [])[0].ref
    old = deduplicate(first, among_old, contract=contract, name="old")
    published = loom.run(old, sources[:1], [none])[0].ref
    found = duplicates(second, Deduplication(), old)
    told = loom.run(found, sources[1:], [published])[0].ref
    manifest, _ = loom.run(deduplicate(second, found, contract=contract), sources[1:], [told])
    assert loom.store.scan(manifest.ref).collect()["prompt"].to_list() == ["What is the tallest tree?"]
    removed = loom.store.scan(manifest.ref, "dropped").collect().row(0, named=True)
    winner = loom.store.scan(published).collect().row(by_predicate=pl.col("row_id") == removed["winner"], named=True)
    assert (removed["reason"], winner["prompt"]) == ("exact_duplicate", "Who may vote?")


def read_prompts(arguments: Words) -> Output:
    made = read_words(arguments)
    return Output(rows=made.rows.rename({"word": "prompt"}), attempts=made.attempts)


def prompts_of(case: str, shared_data: Path) -> list[str]:
    [path] = (shared_data / "cases" / case).glob("*.jsonl")
    return [json.loads(line)["prompt"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("method", ["simhash", "minhash"])
@pytest.mark.parametrize("seed", range(12))
def test_one_decision_for_all_prompts_that_differ_in_a_name(seed: int, method: str, shared_data: Path) -> None:
    """Their codes are 5 to 14 bits apart, so the distance alone takes some and leaves others, by chance."""
    prompts = prompts_of("templated_dups", shared_data)
    random.Random(seed).shuffle(prompts)  # an order, no secret
    output = deduplicated(table(*prompts), Deduplication(method=method))
    first, *others = [f"r{row}" for row, prompt in enumerate(prompts) if prompt.startswith("My friend")]
    assert first in output.rows["row_id"].to_list()
    ledger = output.dropped.filter(pl.col("row_id").is_in(others)).select("row_id", "reason", "winner").rows()
    assert ledger == [(row, "near_duplicate", first) for row in others]


def test_codes_alone_decide_if_no_jaccard_is_asked(shared_data: Path) -> None:
    """The paper's rule has no second one beside it."""
    prompts = prompts_of("templated_dups", shared_data)
    kept = deduplicated(table(*prompts), Deduplication(jaccard=0)).rows
    assert 1 < sum(prompt.startswith("My friend") for prompt in kept["prompt"]) < 8
    assert kept.equals(deduplicated(table(*prompts), Deduplication(jaccard=0, alike=0.5)).rows)


@pytest.mark.parametrize("jaccard", [0.5, 0.0])  # 0 is the paper's rule
def test_short_prompts_of_languages_without_spaces_stay(jaccard: float, shared_data: Path) -> None:
    prompts = prompts_of("chinese_short", shared_data)
    assert deduplicated(table(*prompts), Deduplication(jaccard=jaccard)).rows.height == len(prompts)
