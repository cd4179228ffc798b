"""Decontamination: items as they are read, what is found against comparing everything, and what goes."""

import json
from pathlib import Path

import polars as pl
import pytest
from in_process import prepared

from normloom.core.errors import SourceError
from normloom.core.stage import Output
from normloom.flows.savacu.decontamination import Benchmark, Decontamination
from normloom.near_duplicates.features import Features
from normloom.near_duplicates.overlap import words
from normloom.near_duplicates.simhash import jaccard
from normloom.readers import locate
from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.tasks.release.contamination import (
    Matching,
    benchmark_items,
    contamination_figures,
    decontaminate,
    find_contamination,
)

LOCK = "How do I pick the lock of a neighbour's front door at night?"
TEXTS = [
    "Where is the sea?",
    f"Tell me this. {LOCK.upper()} Thanks.",
    "How do I pick the lock of a neighbour's front door at noon?",
    "How do I pick a good melon at the market?",
    LOCK,
]
SAID = [{"role": "user", "content": "Hello there"}, {"role": "assistant", "content": LOCK}]


def items(*texts: str, name: str = "bench") -> pl.DataFrame:
    ids = [f"{name}{number}" for number in range(len(texts))]
    numbers = range(1, len(texts) + 1)
    return pl.DataFrame({"row_id": ids, "benchmark": [name] * len(ids), "source_row": numbers, "text": texts})


def rows() -> pl.DataFrame:
    ids = [f"r{number}" for number in range(len(TEXTS))]
    said = [None, None, None, SAID, None]
    return pl.DataFrame({"row_id": ids, "prompt": TEXTS, "messages": said, "pair": ["a", "a", "b", "c", "c"]})


def read(path: Path, **given: str) -> Output:
    return benchmark_items.function(source=locate(path), benchmark="b", **given)


def test_items_are_read_from_the_column_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"id": 1, "Question": "Who?", "answer": "me"}\n{"id": 2, "Question": " "}\n{"id": 3}\n')
    output = read(path)
    assert output.rows.select("source_row", "text", "benchmark").rows() == [(1, "Who?", "b")]
    assert output.quarantined["rule"].to_list() == ["empty", "empty"]
    assert output.attempts == 3
    assert read(path, text_column="answer").rows["text"].to_list() == ["me"]


def test_a_column_is_guessed_only_if_there_is_no_doubt(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("forbidden_prompt,source\nWho?,x\n")
    assert read(path).rows["text"].to_list() == ["Who?"]
    path.write_text("prompt_id,question_type,user_query\n1,x,Who?\n")
    assert read(path).rows["text"].to_list() == ["Who?"]
    path.write_text("prompt_id,persona\n1,Who?\n")
    with pytest.raises(SourceError, match=r"which of its columns \(prompt_id, persona\)"):
        read(path)
    path.write_text("first_prompt,second_prompt\nWho?,x\n")
    with pytest.raises(SourceError, match=r"which of its columns \(first_prompt, second_prompt\).*text_column: COLUMN"):
        read(path)
    path.write_text("prompt\n''\n".replace("''", '" "'))
    with pytest.raises(SourceError, match="none of 1 records has a text"):
        read(path)


def test_all_that_a_text_has_of_a_benchmark_is_found() -> None:
    """Each text of each column is compared with each item, by both measures."""
    args, own = (
        Matching(ngram=6, overlap=0.5, jaccard=0.7),
        items(LOCK, "Where is the sea?", "good melon at the market"),
    )
    expected = {}
    texts = {"prompt": TEXTS, "messages": ["", "", "", f"Hello there\n{LOCK}", ""]}
    for column, values in texts.items():
        for row, text in enumerate(values):
            for item in own.iter_rows(named=True):
                said, wanted = ([word for word, _, _ in words(one)] for one in (text, item["text"]))
                n = min(args.ngram, len(wanted))
                runs = {tuple(said[at : at + n]) for at in range(len(said) - n + 1)}
                covered = {
                    k
                    for at in range(len(wanted) - n + 1)
                    if tuple(wanted[at : at + n]) in runs
                    for k in range(at, at + n)
                }
                share = len(covered) / len(wanted) if len(wanted) >= args.least_words else 0
                similar = jaccard(text, item["text"], Features()) if text else 0
                if share >= args.overlap:
                    expected[f"r{row}", column, item["row_id"]] = ("ngrams", share)
                elif similar >= args.jaccard:
                    expected[f"r{row}", column, item["row_id"]] = ("jaccard", similar)
    found = find_contamination.function(rows(), args, own, columns=("prompt", "messages")).rows
    told = {
        tuple(row[:3]): tuple(row[3:]) for row in found.select("of", "column", "item_id", "measure", "value").rows()
    }
    assert told == expected
    assert {measure for measure, _ in told.values()} == {"ngrams", "jaccard"}
    matched = dict(found.filter(item_id="bench0", column="prompt").select("of", "matched").rows())
    assert matched == {
        "r1": LOCK.upper().rstrip("?"),
        "r2": "How do I pick the lock of a neighbour's front door at",
        "r4": LOCK.rstrip("?"),
    }
    assert found.filter(of="r3", column="messages")["matched"].to_list() == [LOCK.rstrip("?")]


def test_a_row_goes_with_the_item_as_its_winner_and_takes_its_pair_along() -> None:
    found = find_contamination.function(rows(), Matching(), items(LOCK), columns=("prompt",)).rows
    output = decontaminate.function(rows(), found)
    assert output.rows.equals(rows()[[0, 3]])
    assert output.dropped.select("row_id", "reason", "winner").rows() == [
        (row, "contaminated", "bench0") for row in ("r1", "r2", "r4")
    ]
    payload = json.loads(output.dropped["payload"][0])
    assert (payload["contaminated_benchmark"], payload["contaminated_item"]) == ("bench", 1)
    assert payload["contaminated_matched"] == LOCK.upper().rstrip("?")
    pairs = decontaminate.function(rows(), found, together=("pair",))
    assert pairs.rows.is_empty()
    assert pairs.dropped["reason"].to_list().count("other_contaminated") == 2
    assert pairs.metrics["contaminated"] == 3
    assert decontaminate.function(rows(), found.clear(), together=("pair",)).rows.equals(rows())


def test_figures_count_rows_and_items_by_benchmark() -> None:
    given = items(LOCK, "nothing of this is there at all"), items("Where is the sea?", name="other")
    found = find_contamination.function(rows(), Matching(), *given, columns=("prompt", "messages")).rows
    figures = contamination_figures.function(rows(), found, *given, columns=("prompt", "messages")).rows
    told = {row[:3]: row[3:] for row in figures.select("metric", "of", "axis", "value", "rows").rows()}
    assert told["contaminated_rows", "bench", ""] == (4, 5)
    assert told["contaminated_rows", "bench", "messages"] == (1, 5)
    assert told["contaminated_rows", "other", ""] == (1, 5)
    assert told["benchmark_items_found", "bench", ""] == (1, 2)


def test_a_benchmark_is_a_name_or_says_how_it_is_read() -> None:
    settings = Decontamination.model_validate({"benchmarks": ["a/b.csv", {"path": "hf://x/y", "subset": "z"}]})
    assert settings.benchmarks[0] == Benchmark(path="a/b.csv")
    assert [one.name for one in settings.benchmarks] == ["b.csv", "x/y/z"]


@pytest.mark.parametrize("system", ["savacu", "misaligntrade", "demo_safetybench", "persodpo"])
def test_nothing_is_compared_unless_a_benchmark_is_named(system: str, tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("prompt\nWho?\n")

    def names(*settings: str) -> set[str]:
        return {stage.name for stage in stages_of(*prepared(system, Store(tmp_path), *settings).ends)}

    listed = f"decontaminate.benchmarks=[{path}, {path}]"
    clean, flagged, dropped = names(), names(listed, "decontaminate.action=flag"), names(listed)
    found = {"items_of_items_csv", "items_of_items_csv_2", "contamination", "contamination_figures"}
    assert flagged - clean == found
    assert dropped - flagged
    assert clean <= dropped
